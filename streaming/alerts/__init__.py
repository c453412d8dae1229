"""Alerts: signals on their way to chats, mailboxes and webhooks.

routing.py    which signal goes to which channel; cooldown
outbox.py     what waits for one channel: batches, the cap a minute and its digest, retries. Time is handed in
delivery.py   the worker of one channel: sends its outbox in a thread of its own, never longer than it may take
channels.py   the channels themselves, through Apprise
letters.py    what could not be delivered, as a file
"""
