"""One fresh process per measurement; each prints one JSON line and writes its draws beside it."""
