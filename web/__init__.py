"""The dashboard. Its build lies in `dist`, which is not committed and which the wheel carries."""
