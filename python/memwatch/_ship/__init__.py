"""`memwatch ship`: reads feeds with a saved cursor and delivers events at least once to an engine that exists.

DESIGN  A source (`source`) is one watcher's feed, read page by page on a thread of its own (`shipper`). A page becomes
records (`record`): events, gaps, restarts. A sink (`otlp`, `nats`, `ndjson`) returns when they are acknowledged,
however long that takes. Then the cursor is saved (`cursors`), and only then is the feed asked again. So a sink that is
slow or away costs the watched process nothing at all: what leaves its log meanwhile comes as a gap. A record that was
acknowledged just before a crash comes twice, with the same id: the epoch and the seq.
"""
