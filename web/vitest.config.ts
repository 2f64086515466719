import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["tests/unit/**/*.test.ts"],
    // What the browser gives, and logic only names.
    setupFiles: ["tests/unit/page.ts"],
  },
});
