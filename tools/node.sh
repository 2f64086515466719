#!/bin/sh
# Whether Node and npm are there, and new enough for what builds the dashboard.
command -v npm >/dev/null 2>&1 && node -e '
  const [major, minor] = process.versions.node.split(".").map(Number);
  process.exit(major > 20 || (major === 20 && minor >= 19) ? 0 : 1);
' >/dev/null 2>&1
