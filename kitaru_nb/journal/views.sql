-- What people read with sqlite-utils or Datasette. Made anew when a file is upgraded.

-- One line for each call: its completion, else its newest event, says how it stands. SQLite takes the bare columns from
-- the row where max() is; 1 << 62 puts completions above all, because a late `started` may follow one.
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
