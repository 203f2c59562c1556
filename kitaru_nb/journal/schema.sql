CREATE TABLE "executions" (
   "id" TEXT PRIMARY KEY NOT NULL,
   "flow" TEXT NOT NULL,
   "status" TEXT NOT NULL,
   "created_at" REAL NOT NULL,
   "updated_at" REAL NOT NULL,
   "ended_at" REAL,
   "original_exec_id" TEXT,
   "deployment" TEXT,
   "stack" TEXT NOT NULL,
   "key" TEXT,
   "epoch" INTEGER NOT NULL DEFAULT 0,
   "lease_owner" TEXT,
   "lease_expires_at" REAL
);

CREATE INDEX "idx_executions_flow_id"
    ON "executions" ("flow", "id");

CREATE INDEX "idx_executions_status_id"
    ON "executions" ("status", "id");

CREATE INDEX "idx_executions_flow_status_id"
    ON "executions" ("flow", "status", "id");

CREATE UNIQUE INDEX executions_key on executions (flow, key) where key is not null;

CREATE TABLE "journal" (
   "seq" INTEGER PRIMARY KEY,
   "exec_id" TEXT NOT NULL,
   "kind" TEXT NOT NULL,
   "key" TEXT NOT NULL,
   "at" REAL NOT NULL,
   "body" TEXT NOT NULL,
   "blob" BLOB,
   "cache_key" TEXT
);

CREATE INDEX "idx_journal_exec_id_seq"
    ON "journal" ("exec_id", "seq");

CREATE UNIQUE INDEX journal_once on journal (exec_id, kind, key) where kind in ('checkpoint.completed', 'wait.created', 'wait.resolved');

CREATE INDEX journal_cache_key on journal (cache_key) where cache_key is not null;

CREATE TABLE "pending_waits" (
   "seq" INTEGER PRIMARY KEY,
   "exec_id" TEXT NOT NULL,
   "wait_id" TEXT NOT NULL,
   "until" REAL
);

CREATE INDEX "idx_pending_waits_exec_id_wait_id"
    ON "pending_waits" ("exec_id", "wait_id");

CREATE INDEX pending_waits_until on pending_waits (until) where until is not null;

CREATE TRIGGER wait_created after insert on journal when new.kind = 'wait.created' begin
            insert into pending_waits (seq, exec_id, wait_id, until)
            select new.seq, new.exec_id, new.key, json_extract(new.body, '$.until')
            where not exists (
                select 1 from journal where exec_id = new.exec_id and kind = 'wait.resolved' and key = new.key);
        end;

CREATE TRIGGER wait_resolved after insert on journal when new.kind = 'wait.resolved' begin
            delete from pending_waits where exec_id = new.exec_id and wait_id = new.key;
        end;

CREATE TABLE "refs" (
   "name" TEXT PRIMARY KEY NOT NULL,
   "value" TEXT NOT NULL
);

CREATE TABLE "ref_changes" (
   "id" INTEGER PRIMARY KEY,
   "name" TEXT NOT NULL,
   "value" TEXT,
   "at" REAL NOT NULL,
   "by" TEXT NOT NULL
);

CREATE INDEX "idx_ref_changes_name_id"
    ON "ref_changes" ("name", "id");

pragma user_version=2;
