-- What a destination's tag was last seen (or written by us) to point to: what `trust_destination` goes by.
CREATE TABLE seen_tags (
    registry   TEXT    NOT NULL,
    repository TEXT    NOT NULL,
    tag        TEXT    NOT NULL,
    digest     TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (registry, repository, tag)
) STRICT, WITHOUT ROWID;
