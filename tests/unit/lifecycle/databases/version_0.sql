BEGIN TRANSACTION;
CREATE TABLE accepted (
    model TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (model, version));
INSERT INTO "accepted" VALUES('iris','2','sha256:22');
CREATE TABLE active (model TEXT PRIMARY KEY, version TEXT NOT NULL, digest TEXT NOT NULL);
INSERT INTO "active" VALUES('iris','2','sha256:22');
CREATE TABLE contracts (
    model TEXT PRIMARY KEY, version TEXT NOT NULL, digest TEXT NOT NULL, signature TEXT NOT NULL);
INSERT INTO "contracts" VALUES('iris','2','sha256:22','{"features":[{"name":"a","dtype":"number","nullable":false},{"name":"b","dtype":"number","nullable":false}],"methods":["predict"],"container":"array","kind":"other","is_named":false,"outputs":1,"classes":null}');
CREATE TABLE lone (
    model TEXT NOT NULL, digest TEXT NOT NULL, version TEXT NOT NULL, PRIMARY KEY (model, digest));
INSERT INTO "lone" VALUES('churn','sha256:cc','20261120T080000Z');
CREATE TABLE pins (model TEXT PRIMARY KEY, version TEXT NOT NULL);
INSERT INTO "pins" VALUES('iris','2');
CREATE TABLE quarantine (
    model TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (model, version, digest));
INSERT INTO "quarantine" VALUES('iris','1','sha256:01');
CREATE TABLE refusals (
    model TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL, at TEXT NOT NULL, basis TEXT NOT NULL,
    against TEXT, report TEXT NOT NULL, PRIMARY KEY (model, version, digest));
INSERT INTO "refusals" VALUES('iris','3','sha256:33','2026-11-29T17:49:19.409775+00:00','basis','sha256:22','{"gates":[{"gate":"load","verdict":"passed","evidence":"loaded","duration_seconds":0.0},{"gate":"contract","verdict":"refused","evidence":"it lacks the feature ''b'': clients send it","duration_seconds":0.25}],"signature":null,"engine":"sklearn","libraries":{"scikit-learn":"1.9.0"},"memory_bytes":1000,"compilation":null,"sandbox":{"active":[],"missing":{}},"provenance":null}');
CREATE TABLE signed (model TEXT PRIMARY KEY, provenance TEXT NOT NULL);
INSERT INTO "signed" VALUES('iris','{"version":"2","key":"ed25519:abc...","created_at":"2026-11-20T00:00:00Z"}');
CREATE TABLE transitions (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL, model TEXT NOT NULL, version TEXT, digest TEXT, before TEXT, after TEXT,
    actor TEXT NOT NULL, event TEXT NOT NULL, reason TEXT, duration_seconds REAL);
INSERT INTO "transitions" VALUES(1,'2026-11-20T08:00:01+00:00','iris','2','sha256:22','READY','ACTIVE','system','transition','first active version',0.5);
CREATE TABLE unloaded (model TEXT PRIMARY KEY);
INSERT INTO "unloaded" VALUES('wine');
CREATE INDEX transitions_by_model ON transitions (model, id);
COMMIT;
PRAGMA user_version = 0;
