-- How much registries let us ask, and what waits for it.

-- The key has the host too, so that a name that is given to another registry brings nothing of the old one along.
CREATE TABLE rates (
    registry        TEXT    NOT NULL,
    host            TEXT    NOT NULL,
    -- No request is sent before this.
    paused_until    INTEGER,
    -- A metered quota as the registry last said. The window is in milliseconds.
    quota_limit     INTEGER,
    quota_remaining INTEGER,
    quota_window    INTEGER,
    quota_seen_at   INTEGER,
    kept_at         INTEGER NOT NULL,
    PRIMARY KEY (registry, host)
) STRICT, WITHOUT ROWID;

-- Images that wait for a quota or a pause to end, since when.
CREATE TABLE deferred (
    registry          TEXT    NOT NULL,
    repository        TEXT    NOT NULL,
    tag               TEXT    NOT NULL,
    rule              TEXT    NOT NULL,
    source_registry   TEXT    NOT NULL,
    source_repository TEXT    NOT NULL,
    digest            TEXT,
    message           TEXT    NOT NULL,
    since             INTEGER NOT NULL,
    until             INTEGER NOT NULL,
    PRIMARY KEY (registry, repository, tag, rule)
) STRICT, WITHOUT ROWID;
