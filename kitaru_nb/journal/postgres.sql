-- Version 1 of the journal in PostgreSQL. {schema} is replaced by the quoted name of the schema.
create table {schema}.executions (
    id text primary key collate "C",
    flow text not null,
    status text not null,
    created_at double precision not null,
    updated_at double precision not null,
    ended_at double precision,
    original_exec_id text,
    deployment text,
    stack text not null,
    key text,
    epoch integer not null default 0,
    lease_owner text,
    lease_expires_at double precision
);
create index on {schema}.executions (flow, id);
create index on {schema}.executions (status, id);
create index on {schema}.executions (flow, status, id);
create unique index on {schema}.executions (flow, key) where key is not null;

-- Bodies are JSON as text: PostgreSQL's own JSON types refuse or change some of what a body may hold.
create table {schema}.journal (
    seq bigint generated always as identity primary key,
    exec_id text not null collate "C",
    kind text not null,
    key text not null,
    at double precision not null,
    body text not null,
    blob bytea,
    cache_key text
);
create index on {schema}.journal (exec_id, seq);
create unique index journal_once on {schema}.journal (exec_id, kind, key)
    where kind in ('checkpoint.completed', 'wait.created', 'wait.resolved');
create index on {schema}.journal (cache_key, seq) where cache_key is not null;

create table {schema}.pending_waits (
    seq bigint primary key,
    exec_id text not null,
    wait_id text not null,
    until double precision
);
create index on {schema}.pending_waits (exec_id, wait_id);
create index on {schema}.pending_waits (until) where until is not null;

create table {schema}.refs (name text primary key, value text not null);
create table {schema}.ref_changes (
    id bigint generated always as identity primary key,
    name text not null,
    value text,
    at double precision not null,
    by text not null
);
create index on {schema}.ref_changes (name, id);

create table {schema}.version (version integer not null);

-- All writes take this lock, so that numbers become visible in their order: whoever has read up to one has missed none.
create function {schema}.take_turn() returns void language sql as
    $$ select pg_advisory_xact_lock(hashtext('kitaru journal'), hashtext({schema_text})) $$;

-- Store events of one execution; the number of the last, or null for none.
create function {schema}.store(
    of_exec_id text, kinds text[], keys text[], ats double precision[], bodies text[], blobs bytea[],
    cache_keys text[], untils double precision[]
) returns bigint language plpgsql as $$
declare
    number bigint;
begin
    for i in 1 .. coalesce(array_length(kinds, 1), 0) loop
        insert into {schema}.journal (exec_id, kind, key, at, body, blob, cache_key)
            values (of_exec_id, kinds[i], keys[i], ats[i], bodies[i], blobs[i], cache_keys[i])
            returning seq into number;
        if kinds[i] = 'wait.created' then
            insert into {schema}.pending_waits (seq, exec_id, wait_id, until)
                select number, of_exec_id, keys[i], untils[i] where not exists (
                    select from {schema}.journal
                    where exec_id = of_exec_id and kind = 'wait.resolved' and key = keys[i]);
        elsif kinds[i] = 'wait.resolved' then
            delete from {schema}.pending_waits where exec_id = of_exec_id and wait_id = keys[i];
        end if;
    end loop;
    if number is not null then
        perform pg_notify('kitaru', of_exec_id);
    end if;
    return number;
end $$;

-- Append under a fencing token (null: an outsider). The hot path: one statement, one commit.
-- Raises KN404 (no such execution) and KN409 (another epoch, which is the message).
create function {schema}.append(
    of_exec_id text, with_epoch integer, kinds text[], keys text[], ats double precision[], bodies text[],
    blobs bytea[], cache_keys text[], untils double precision[],
    new_status text, new_updated_at double precision, new_ended_at double precision
) returns bigint language plpgsql as $$
declare
    found_epoch integer;
    number bigint;
begin
    perform {schema}.take_turn();
    select epoch into found_epoch from {schema}.executions where id = of_exec_id;
    if found_epoch is null then
        raise exception 'not found' using errcode = 'KN404';
    elsif with_epoch is not null and with_epoch <> found_epoch then
        raise exception '%', found_epoch using errcode = 'KN409';
    end if;
    number := {schema}.store(of_exec_id, kinds, keys, ats, bodies, blobs, cache_keys, untils);
    if new_status is not null then
        update {schema}.executions set status = new_status, updated_at = new_updated_at, ended_at = new_ended_at
            where id = of_exec_id;
    end if;
    if number is null then
        select max(seq) into number from {schema}.journal where exec_id = of_exec_id;
    end if;
    return coalesce(number, 0);
end $$;
