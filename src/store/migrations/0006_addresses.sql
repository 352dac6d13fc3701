-- Where each registry's name led when it was last used: what is remembered under the name is remembered of that place.
CREATE TABLE addresses (
    registry TEXT    NOT NULL PRIMARY KEY,
    -- Scheme, host, port and path of a registry, or a layout's directory.
    address  TEXT    NOT NULL,
    since    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Was written beside `seen_tags` with the same content, and never read.
DROP TABLE verified;
