import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const react = (version, alias = {}) => ({
  extends: true,
  resolve: { alias },
  test: { name: version, include: ["tests/react.test.js"], environment: "jsdom" },
});

export default defineConfig({
  test: {
    testTimeout: 60_000,
    hookTimeout: 60_000,
    projects: [
      { extends: true, test: { name: "javascript", include: ["tests/javascript.test.js", "tests/live.test.js"] } },
      react("react 19"),
      react("react 18", {
        "react-dom": path("tests/react-18/node_modules/react-dom"),
        react: path("tests/react-18/node_modules/react"),
      }),
    ],
  },
});
