-- Whose an open upload is: several processes may bring one blob to one repository at once, each by an upload of its own.
-- The tables are made anew, as what is unique changes; the checkpoints first, which would go with the uploads.

CREATE TABLE owned_uploads (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    registry     TEXT    NOT NULL,
    repository   TEXT    NOT NULL,
    digest       TEXT    NOT NULL,
    size         INTEGER NOT NULL,
    write        TEXT    NOT NULL,
    acknowledged INTEGER NOT NULL,
    opened_at    INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    -- The number of the process that uses it, or used it last; empty where it is nobody's.
    owner        INTEGER,
    UNIQUE (registry, repository, digest, owner)
) STRICT;
INSERT INTO owned_uploads
SELECT id, registry, repository, digest, size, write, acknowledged, opened_at, updated_at, NULL FROM uploads;

CREATE TABLE owned_checkpoints (
    id        INTEGER PRIMARY KEY,
    upload_id INTEGER NOT NULL REFERENCES owned_uploads (id) ON DELETE CASCADE,
    hashed    INTEGER NOT NULL,
    state     BLOB    NOT NULL,
    UNIQUE (upload_id, hashed)
) STRICT;
INSERT INTO owned_checkpoints SELECT id, upload_id, hashed, state FROM checkpoints;

DROP TABLE checkpoints;
DROP TABLE uploads;
ALTER TABLE owned_uploads RENAME TO uploads;
ALTER TABLE owned_checkpoints RENAME TO checkpoints;
