PRAGMA application_id=1802793589;
PRAGMA user_version=1;
PRAGMA journal_mode=wal;
BEGIN TRANSACTION;
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
INSERT INTO "executions" VALUES('kr-0c0000000001','brief','completed',1767225600.0,1767225662.0,1767225662.0,NULL,NULL,'local','monday',2,NULL,NULL);
INSERT INTO "executions" VALUES('kr-0c0000000002','brief','running',1767225700.0,1767225605.0,NULL,'kr-0c0000000001','brief@v3','k8s',NULL,1,NULL,NULL);
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
INSERT INTO "journal" VALUES(1,'kr-0c0000000001','execution.created','',1767225600.0,'{"flow":"brief","ref":"briefs:brief","inputs":{"topic":{"artifact_id":"kr-0c0000000001/c1/topic","name":"topic","kind":"input","serializer":"json","python_type":"builtins.str","media_type":"application/json","digest":"abababababababababababababababababababababababababababababababab","size":9,"token":true,"preview":{"text":"notes…"},"producing_call":"c1","names":["topic"],"inline":[0,9]}},"options":{},"by":"ann","original":null,"plan":null}',X'226167C3A96E747322',NULL);
INSERT INTO "journal" VALUES(2,'kr-0c0000000001','execution.claimed','',1767225602.0,'{"owner":{"host":"workstation","pid":4242,"started":99,"nonce":"0123456789ab"},"epoch":1}',NULL,NULL);
INSERT INTO "journal" VALUES(3,'kr-0c0000000001','checkpoint.started','c1',1767225603.0,'{"name":"research","type":"cell","parent":"","place":"flow/0","inputs":[["topic","json:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","agénts",["input:topic"]]],"after":[],"attempt":1,"code":"efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef","started_at":1767225603.0}',NULL,NULL);
INSERT INTO "journal" VALUES(4,'kr-0c0000000001','checkpoint.completed','c1',1767225605.0,'{"name":"research","type":"cell","parent":"","place":"flow/0","inputs":[["topic","json:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","agénts",["input:topic"]]],"after":[],"attempt":1,"code":"efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef","started_at":1767225603.0,"outputs":[{"artifact_id":"kr-0c0000000001/c1/notes","name":"notes","kind":"output","serializer":"json","python_type":"builtins.str","media_type":"application/json","digest":"abababababababababababababababababababababababababababababababab","size":7,"token":true,"preview":{"text":"notes…"},"producing_call":"c1","names":["notes"],"inline":[0,7]}],"duration":2.0,"metadata":{"tokens":12},"partial":[]}',X'226E6F74657322','content:1212121212121212121212121212121212121212121212121212121212121212');
INSERT INTO "journal" VALUES(5,'kr-0c0000000001','log.lines','c1',1767225605.0,'{"lines":[[1767225604.0,"stdout","INFO","looking\u2026\ud83d\udd0e \ud800"]]}',NULL,NULL);
INSERT INTO "journal" VALUES(6,'kr-0c0000000001','metadata','',1767225605.0,'{"cost":0.01,"big":1180591620717411303424}',NULL,NULL);
INSERT INTO "journal" VALUES(7,'kr-0c0000000001','wait.created','approve',1767225606.0,'{"name":"approve","question":"Publish?","schema":{"type":"boolean"},"metadata":{},"until":null,"timeout":0,"parent":null,"after":["c1"]}',NULL,NULL);
INSERT INTO "journal" VALUES(8,'kr-0c0000000001','execution.waiting','',1767225607.0,'{"waits":["approve"]}',NULL,NULL);
INSERT INTO "journal" VALUES(9,'kr-0c0000000001','wait.resolved','approve',1767225660.0,'{"value":true,"by":"bob","via":"cli","aborted":false}',NULL,NULL);
INSERT INTO "journal" VALUES(10,'kr-0c0000000001','execution.claimed','',1767225603.0,'{"owner":{"host":"workstation","pid":4242,"started":99,"nonce":"0123456789ab"},"epoch":2}',NULL,NULL);
INSERT INTO "journal" VALUES(11,'kr-0c0000000001','artifact.saved','draft',1767225661.0,'{"artifact":{"artifact_id":"kr-0c0000000001/c1/draft","name":"draft","kind":"output","serializer":"json","python_type":"builtins.str","media_type":"application/json","digest":"abababababababababababababababababababababababababababababababab","size":0,"token":true,"preview":{"text":"notes…"},"producing_call":"c1","names":["draft"]},"call":"c1"}',NULL,NULL);
INSERT INTO "journal" VALUES(12,'kr-0c0000000001','execution.completed','',1767225662.0,'{"result":null}',NULL,NULL);
INSERT INTO "journal" VALUES(13,'kr-0c0000000002','execution.created','',1767225700.0,'{"flow":"brief","ref":"briefs:brief","inputs":{},"options":{},"by":"bob","original":"kr-0c0000000001","plan":{"run":["c1"]}}',NULL,NULL);
INSERT INTO "journal" VALUES(14,'kr-0c0000000002','execution.claimed','',1767225605.0,'{"owner":{"host":"workstation","pid":4242,"started":99,"nonce":"0123456789ab"},"epoch":1}',NULL,NULL);
INSERT INTO "journal" VALUES(15,'kr-0c0000000002','checkpoint.failed','c1',1767225704.0,'{"name":"research","type":"cell","parent":"","place":"flow/0","inputs":[["topic","json:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","agénts",["input:topic"]]],"after":[],"attempt":1,"code":"efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef","started_at":1767225603.0,"failure":{"message":"no network","exception_type":"OSError","traceback":null,"origin":"user"},"final":true,"retry_in":null,"attempt_at":1767225703.0}',NULL,NULL);
INSERT INTO "journal" VALUES(16,'kr-0c0000000002','wait.created','until',1767225705.0,'{"name":"until","question":null,"schema":{},"metadata":{"why":"embargo"},"until":1767234600.5,"timeout":null,"parent":"c1","after":[]}',NULL,NULL);
INSERT INTO "journal" VALUES(17,'kr-0c0000000002','execution.paused','',1767225706.0,'{"reason":"Ctrl-C"}',NULL,NULL);
CREATE TABLE "pending_waits" (
   "seq" INTEGER PRIMARY KEY,
   "exec_id" TEXT NOT NULL,
   "wait_id" TEXT NOT NULL,
   "until" REAL
);
INSERT INTO "pending_waits" VALUES(16,'kr-0c0000000002','until',1767234600.5);
CREATE TABLE "ref_changes" (
   "id" INTEGER PRIMARY KEY,
   "name" TEXT NOT NULL,
   "value" TEXT,
   "at" REAL NOT NULL,
   "by" TEXT NOT NULL
);
INSERT INTO "ref_changes" VALUES(1,'tag/brief/prod','v3',1767225606.0,'ann');
INSERT INTO "ref_changes" VALUES(2,'tag/brief/prod','v4',1767225607.0,'bob');
INSERT INTO "ref_changes" VALUES(3,'tag/gone','v1',1767225608.0,'ann');
INSERT INTO "ref_changes" VALUES(4,'tag/gone',NULL,1767225609.0,'ann');
CREATE TABLE "refs" (
   "name" TEXT PRIMARY KEY NOT NULL,
   "value" TEXT NOT NULL
);
INSERT INTO "refs" VALUES('tag/brief/prod','v4');
CREATE INDEX "idx_executions_flow_id"
    ON "executions" ("flow", "id");
CREATE INDEX "idx_executions_status_id"
    ON "executions" ("status", "id");
CREATE INDEX "idx_executions_flow_status_id"
    ON "executions" ("flow", "status", "id");
CREATE UNIQUE INDEX executions_key on executions (flow, key) where key is not null;
CREATE INDEX "idx_journal_exec_id_seq"
    ON "journal" ("exec_id", "seq");
CREATE UNIQUE INDEX journal_once on journal (exec_id, kind, key) where kind in ('checkpoint.completed', 'wait.created', 'wait.resolved');
CREATE INDEX journal_cache_key on journal (cache_key) where cache_key is not null;
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
CREATE INDEX "idx_ref_changes_name_id"
    ON "ref_changes" ("name", "id");
CREATE VIEW "checkpoints" AS
    select exec_id, call_id, name, type, status,
        strftime('%Y-%m-%dT%H:%M:%fZ', started, 'unixepoch') as started_at,
        case when status in ('running', 'retrying') then null else strftime('%Y-%m-%dT%H:%M:%fZ', coalesce(started + seconds, at), 'unixepoch') end
            as ended_at,
        seconds, attempt, parent, error, reused_from
    from (
        select exec_id, key as call_id, at, max(seq + case kind when 'checkpoint.completed' then 1 << 62 else 0 end),
            json_extract(body, '$.name') as name,
            json_extract(body, '$.type') as type,
            case kind
                when 'checkpoint.completed' then
                    case when json_extract(body, '$.reused') is null then 'completed' else 'reused' end
                when 'checkpoint.failed' then
                    case when json_extract(body, '$.final') then 'failed' else 'retrying' end
                else 'running' end as status,
            coalesce(json_extract(body, '$.started_at'), case kind when 'checkpoint.started' then at end) as started,
            json_extract(body, '$.duration') as seconds,
            json_extract(body, '$.attempt') as attempt,
            json_extract(body, '$.parent') as parent,
            json_extract(body, '$.failure.message') as error,
            json_extract(body, '$.reused.exec_id') as reused_from
        from journal
        where kind in ('checkpoint.started', 'checkpoint.completed', 'checkpoint.failed')
        group by exec_id, key);
CREATE VIEW "artifacts" AS
    select exec_id, call_id,
        json_extract(artifact, '$.name') as name,
        json_extract(artifact, '$.kind') as kind,
        json_extract(artifact, '$.python_type') as python_type,
        json_extract(artifact, '$.media_type') as media_type,
        json_extract(artifact, '$.size') as size,
        json_extract(artifact, '$.preview.text') as preview,
        case when json_extract(artifact, '$.inline') is null then 'store' else 'journal' end as stored_in,
        json_extract(artifact, '$.digest') as digest,
        strftime('%Y-%m-%dT%H:%M:%fZ', at, 'unixepoch') as created_at,
        json_extract(artifact, '$.artifact_id') as artifact_id
    from (
        select exec_id, journal.key as call_id, at, output.value as artifact
        from journal, json_each(body, '$.outputs') as output
        where journal.kind = 'checkpoint.completed'
        union all
        select exec_id, null, at, input.value from journal, json_each(body, '$.inputs') as input
        where journal.kind = 'execution.created'
        union all
        select exec_id, json_extract(body, '$.call'), at, json_extract(body, '$.artifact') from journal
        where kind = 'artifact.saved'
        union all
        select exec_id, null, at, json_extract(body, '$.result') from journal
        where kind = 'execution.completed' and json_extract(body, '$.result') is not null);
CREATE VIEW "waits" AS
    select created.exec_id as exec_id, created.key as wait_id,
        json_extract(created.body, '$.name') as name,
        json_extract(created.body, '$.question') as question,
        case when resolved.seq is null then 'pending'
            when json_extract(resolved.body, '$.aborted') then 'aborted' else 'resolved' end as status,
        case json_type(resolved.body, '$.value') when 'true' then 'true' when 'false' then 'false'
            else json_extract(resolved.body, '$.value') end as value,
        json_extract(resolved.body, '$.by') as resolved_by,
        json_extract(resolved.body, '$.via') as via,
        strftime('%Y-%m-%dT%H:%M:%fZ', created.at, 'unixepoch') as created_at,
        strftime('%Y-%m-%dT%H:%M:%fZ', json_extract(created.body, '$.until'), 'unixepoch') as until,
        strftime('%Y-%m-%dT%H:%M:%fZ', resolved.at, 'unixepoch') as resolved_at,
        resolved.at - created.at as seconds
    from journal as created
    left join journal as resolved on resolved.exec_id = created.exec_id
        and resolved.kind = 'wait.resolved' and resolved.key = created.key
    where created.kind = 'wait.created';
COMMIT;
