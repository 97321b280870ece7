-- The registry's index. Everything here can be rebuilt from the records beside the blobs, but for
-- marks, which then start again, and intents, which then have no object.
--
-- Names are compared byte by byte (COLLATE "C"), so that listings have the same order here as in
-- sled and as clients page through them. A record is kept as the very text of its JSON: jsonb
-- would refuse what JSON allows (the character U+0000 in an annotation).
--
-- The schema hayloft is made before this file runs, for the table that counts the migrations.

CREATE TABLE hayloft.repositories (
    name   text COLLATE "C" PRIMARY KEY,
    record text NOT NULL
);

CREATE TABLE hayloft.manifests (
    repository text COLLATE "C" NOT NULL,
    digest     text COLLATE "C" NOT NULL,
    subject    text COLLATE "C",
    record     text NOT NULL,
    PRIMARY KEY (repository, digest)
);
CREATE INDEX manifests_by_subject ON hayloft.manifests (repository, subject, digest)
    WHERE subject IS NOT NULL;
CREATE INDEX manifests_by_digest ON hayloft.manifests (digest);

-- What a manifest names: blobs, and for an image index manifests.
CREATE TABLE hayloft.manifest_content (
    repository  text COLLATE "C" NOT NULL,
    content     text COLLATE "C" NOT NULL,
    digest      text COLLATE "C" NOT NULL,
    is_manifest boolean NOT NULL,
    PRIMARY KEY (repository, content, digest)
);
CREATE INDEX manifest_content_by_manifest ON hayloft.manifest_content (repository, digest);

CREATE TABLE hayloft.tags (
    repository text COLLATE "C" NOT NULL,
    tag        text COLLATE "C" NOT NULL,
    digest     text COLLATE "C" NOT NULL,
    record     text NOT NULL,
    PRIMARY KEY (repository, tag)
);
CREATE INDEX tags_by_digest ON hayloft.tags (repository, digest, tag);

CREATE TABLE hayloft.blobs (
    repository text COLLATE "C" NOT NULL,
    digest     text COLLATE "C" NOT NULL,
    record     text NOT NULL,
    PRIMARY KEY (repository, digest)
);
CREATE INDEX blobs_by_digest ON hayloft.blobs (digest, repository);

CREATE TABLE hayloft.leases (
    path   text COLLATE "C" PRIMARY KEY,
    record text NOT NULL
);

-- Until when a lease wants a digest, in microseconds since 1970.
CREATE TABLE hayloft.lease_content (
    digest  text COLLATE "C" NOT NULL,
    path    text COLLATE "C" NOT NULL,
    expires bigint NOT NULL,
    PRIMARY KEY (digest, path)
);
CREATE INDEX lease_content_by_lease ON hayloft.lease_content (path);

-- Records that are about to change: settled by whoever takes the repository next.
CREATE TABLE hayloft.intents (
    path       text COLLATE "C" PRIMARY KEY,
    repository text COLLATE "C" NOT NULL
);
CREATE INDEX intents_by_repository ON hayloft.intents (repository, path);

-- What the collection found unreferenced, and since when.
CREATE TABLE hayloft.marks (
    name  text COLLATE "C" PRIMARY KEY,
    since text NOT NULL
);

CREATE TABLE hayloft.notes (
    name  text COLLATE "C" PRIMARY KEY,
    value text NOT NULL
);

-- Which registry this is the index of, and which rebuild of it: one row.
CREATE TABLE hayloft.state (
    is_only    boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    registry   uuid,
    generation bigint
);
INSERT INTO hayloft.state DEFAULT VALUES;

-- How often the index changed, as a sum over rows, so that changes need not queue for one row.
-- An older copy of the database that was put back shows as a smaller sum. A sequence would not
-- do: it is not part of the snapshot that a dump takes.
CREATE TABLE hayloft.changes (
    slot  integer PRIMARY KEY,
    count bigint NOT NULL DEFAULT 0
);
INSERT INTO hayloft.changes (slot) SELECT generate_series(0, 63);

-- Registry processes that are running, so that one of another registry is never pushed out.
CREATE TABLE hayloft.replicas (
    id       uuid PRIMARY KEY,
    registry uuid NOT NULL,
    seen     timestamptz NOT NULL DEFAULT now()
);
