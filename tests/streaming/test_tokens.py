"""Tokens and the file of them."""

import hashlib
import json
import os
import stat
import threading
from pathlib import Path

import pytest

from data.errors import SettingsError, UsageError
from streaming.tokens import MAX_LENGTH, Tokens, add, read, remove


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config" / "tokens.json"


def test_of_a_token_only_its_hash_is_kept_where_nobody_else_can_look(path: Path) -> None:
    name, token = add(path, "phone")
    assert (name, len(token) >= 47) == ("phone", True)
    (kept,) = read(path)
    assert (kept.name, kept.sha256) == ("phone", hashlib.sha256(token.encode()).hexdigest())
    assert token.removeprefix("mss_") not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == ["tokens.json"]


def test_names_are_given_in_order_and_are_one_token_s_each(path: Path) -> None:
    assert [add(path)[0] for _ in range(3)] == ["token-1", "token-2", "token-3"]
    remove(path, "token-2")
    assert add(path)[0] == "token-2"
    with pytest.raises(UsageError, match="'token-1' already"):
        add(path, "token-1")
    with pytest.raises(UsageError, match=r"no token 'token-9'.*token-1, token-3, token-2"):
        remove(path, "token-9")
    for bad in ("", "a b", "-x", "x" * 65, "贵州", "../x", "x\n"):
        with pytest.raises(UsageError, match="name"):
            add(path, bad)
    assert len(read(path)) == 3


def test_tokens_that_are_made_at_the_same_time_are_all_kept(path: Path) -> None:
    threads = [threading.Thread(target=add, args=(path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one.name for one in read(path)}) == 8


def test_a_server_knows_a_token_by_all_of_it(path: Path) -> None:
    _, token = add(path)
    known = Tokens(path)
    known.load()
    digest = known.digest_of(token)
    assert digest is not None
    assert digest in known
    for wrong in ("", token[:-1], token + "x", token.upper(), digest, "x" * (MAX_LENGTH + 1), "\ud800", "贵"):
        assert known.digest_of(wrong) is None


def test_what_is_made_and_revoked_is_noticed(path: Path) -> None:
    known = Tokens(path)
    known.load()
    assert len(known) == 0
    name, token = add(path)
    known.refresh()
    digest = known.digest_of(token)
    assert digest is not None
    remove(path, name)
    known.refresh()
    assert digest not in known
    _, other = add(path)
    known.refresh()
    path.unlink()
    known.refresh()
    assert known.digest_of(other) is None


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"tokens": [{"name": "x"}]}', '{"tokens": [5]}', "\xff"])
def test_a_file_that_is_none_of_ours_is_refused_and_a_running_server_keeps_what_it_knew(
    path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, token = add(path)
    known = Tokens(path)
    known.load()
    path.write_text(text, encoding="latin-1")
    with pytest.raises(SettingsError, match=r"serve\.tokens"):
        Tokens(path).load()
    known.refresh()
    known.refresh()
    assert known.digest_of(token)
    assert caplog.text.count("stay in force") == 1


def test_what_is_no_hash_lets_nobody_in(path: Path) -> None:
    add(path)
    kept = json.loads(path.read_text())
    kept["tokens"][0]["sha256"] = "password"
    path.write_text(json.dumps(kept))
    with pytest.raises(SettingsError, match="SHA-256"):
        read(path)


def test_a_file_that_others_may_write_to_is_refused_with_the_remedy(path: Path) -> None:
    add(path)
    path.chmod(0o620)
    with pytest.raises(SettingsError, match=f"chmod 600 {path}"):
        read(path)
