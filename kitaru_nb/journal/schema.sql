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
            coalesce(json_extract(body, '$.attempt'), case
                when kind = 'checkpoint.completed' and json_extract(body, '$.reused') is null then 1 end) as attempt,
            json_extract(body, '$.parent') as parent,
            json_extract(body, '$.failure.message') as error,
            json_extract(body, '$.reused.exec_id') as reused_from
        from journal
        where kind in ('checkpoint.started', 'checkpoint.completed', 'checkpoint.failed')
        group by exec_id, key);

CREATE VIEW "artifacts" AS
    select exec_id, call_id,
        coalesce(json_extract(artifact, '$.name'), call_name) as name,
        coalesce(json_extract(artifact, '$.kind'), 'output') as kind,
        json_extract(artifact, '$.python_type') as python_type,
        coalesce(json_extract(artifact, '$.media_type'),
            case json_extract(artifact, '$.serializer') when 'json' then 'application/json' end) as media_type,
        json_extract(artifact, '$.size') as size,
        json_extract(artifact, '$.preview.text') as preview,
        case when json_extract(artifact, '$.inline') is null then 'store' else 'journal' end as stored_in,
        json_extract(artifact, '$.digest') as digest,
        strftime('%Y-%m-%dT%H:%M:%fZ', at, 'unixepoch') as created_at,
        coalesce(json_extract(artifact, '$.artifact_id'), exec_id || '/' || coalesce(call_id, '') || '/' ||
            coalesce(json_extract(artifact, '$.name'), call_name)) as artifact_id
    from (
        select exec_id, journal.key as call_id, at, output.value as artifact, json_extract(body, '$.name') as call_name
        from journal, json_each(body, '$.outputs') as output
        where journal.kind = 'checkpoint.completed'
        union all
        select exec_id, null, at, input.value, null from journal, json_each(body, '$.inputs') as input
        where journal.kind = 'execution.created'
        union all
        select exec_id, json_extract(body, '$.call'), at, json_extract(body, '$.artifact'), null from journal
        where kind = 'artifact.saved'
        union all
        select exec_id, null, at, json_extract(body, '$.result'), null from journal
        where kind = 'execution.completed' and json_extract(body, '$.result') is not null);

pragma user_version=2;
