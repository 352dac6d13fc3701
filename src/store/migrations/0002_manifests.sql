-- Manifests as they were read by digest: content that never changes. `used_at` says which are thrown away first.
CREATE TABLE manifests (
    id         INTEGER PRIMARY KEY,
    registry   TEXT    NOT NULL,
    repository TEXT    NOT NULL,
    digest     TEXT    NOT NULL,
    media_type TEXT    NOT NULL,
    bytes      BLOB    NOT NULL,
    size       INTEGER NOT NULL,
    used_at    INTEGER NOT NULL,
    UNIQUE (registry, repository, digest)
) STRICT;
-- Holds all that is needed to find what must go, so that no manifest's bytes are read for it.
CREATE INDEX manifests_used ON manifests (used_at, id, size);

-- The tag under which a kept manifest was read: worth a question for the tag's digest instead of reading it again.
CREATE TABLE manifest_tags (
    registry    TEXT    NOT NULL,
    repository  TEXT    NOT NULL,
    tag         TEXT    NOT NULL,
    manifest_id INTEGER NOT NULL REFERENCES manifests (id) ON DELETE CASCADE,
    PRIMARY KEY (registry, repository, tag)
) STRICT, WITHOUT ROWID;
CREATE INDEX manifest_tags_manifest ON manifest_tags (manifest_id);
