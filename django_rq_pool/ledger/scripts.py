"""Scripts: the steps of a job that must be one, as Redis carries them out.

Rule of the room: Lua and what it needs; nothing is decided in Python that the server can decide in
the same instant. Each script first finds out whether the job is in the hands of the worker that
asks, changes nothing if it is not, and otherwise carries out the commands that RQ itself would have
put into a transaction. No script needs more than Redis 6.2.

The first write of each script is one that a full server accepts (``HDEL``, ``LREM``). A server that
refuses writes for another reason refuses it, and nothing has happened then.
"""

from __future__ import annotations

from enum import IntEnum


class Answer(IntEnum):
    """What a step found."""

    NOT_HELD = 0
    """The worker does not hold the job; nothing was changed but what it had noted itself."""
    DONE = 1
    """The step was carried out."""
    DONE_BEFORE = 2
    """It had been carried out: the answer of the first try was lost."""


_RUN = """
local failure
local function run(at)
    while at <= #ARGV do
        local count = tonumber(ARGV[at])
        local reply = redis.pcall(unpack(ARGV, at + 1, at + count))
        if type(reply) == 'table' and reply.err then
            failure = failure or reply
        end
        at = at + count + 1
    end
end
"""
"""Carries out commands that stand in ARGV, each after the number of its words. As in a transaction,
one that fails does not keep the others from being carried out; ``failure`` is the first one's."""

BEGIN = (
    _RUN
    + """
local begun, in_flight = KEYS[1], KEYS[2]
local id, execution, queue = ARGV[1], ARGV[2], ARGV[3]
if redis.call('LREM', in_flight, 1, id) == 0 then
    return redis.call('HEXISTS', begun, execution) * 2
end
redis.call('HSET', begun, execution, queue)
run(4)
return failure or 1
"""
)
"""Makes a job that was taken a begun one.

KEYS: hash of begun executions, in-flight list.
ARGV: job id, execution, queue key, commands.
"""

_DEPENDENTS = """
-- Whether every dependency of a job is met, of which one is just being settled.
local function is_met(job_prefix, id, parent, outcome, allows_failures)
    if outcome ~= 'finished' and not (outcome == 'failed' and allows_failures) then
        return false
    end
    for _, other in ipairs(redis.call('SMEMBERS', job_prefix .. ':' .. id .. ':dependencies')) do
        if other ~= parent then
            local status = redis.call('HGET', job_prefix .. other, 'status')
            if status and status ~= 'finished' and not (status == 'failed' and allows_failures) then
                return false
            end
        end
    end
    return true
end

-- Gives the free slots of a rate limit to the jobs that wait longest.
local function fill_slots(rate, job_prefix, queue_prefix, now, now_text)
    local slots, waiting = rate .. ':allowed', rate .. ':rate_limited'
    local limit = tonumber(redis.call('HGET', rate, 'concurrency') or 0)
    while redis.call('ZCARD', slots) < limit do
        local id = redis.call('ZPOPMIN', waiting)[1]
        if not id then
            return
        end
        local key = job_prefix .. id
        local job = redis.call('HMGET', key, 'origin', 'status', 'enqueue_at_front')
        if job[1] and job[2] == 'rate_limited' then
            redis.call('ZADD', slots, now, id)
            redis.call('HSET', key, 'status', 'queued', 'enqueued_at', now_text)
            local push = job[3] == '1' and 'LPUSH' or 'RPUSH'
            redis.call(push, queue_prefix .. job[1], id)
        end
    end
end

-- Enqueues one deferred job, or has it wait for a slot of its rate limit.
local function enqueue(prefix, id, job, job_prefix, queue_prefix, now, now_text, timeout)
    local key = job_prefix .. id
    redis.call('ZREM', prefix .. ':deferred:' .. job[2], id)
    if not job[5] then
        redis.call('HSET', key, 'timeout', timeout)
    end
    if tonumber(job[6] or 0) > 0 then
        redis.call('EXPIRE', key, job[6])
        redis.call('EXPIRE', key .. ':dependents', job[6])
        redis.call('EXPIRE', job_prefix .. ':' .. id .. ':dependencies', job[6])
    end
    if job[7] then
        local rate = prefix .. ':rl:' .. job[7]
        redis.call('SADD', prefix .. ':rl-keys', job[7])
        redis.call('HSET', rate, 'concurrency', job[8])
        redis.call('HSET', key, 'status', 'rate_limited')
        redis.call('ZADD', rate .. ':rate_limited', now, id)
        fill_slots(rate, job_prefix, queue_prefix, now, now_text)
    else
        redis.call('HSET', key, 'status', 'queued', 'enqueued_at', now_text)
        redis.call(job[4] == '1' and 'LPUSH' or 'RPUSH', queue_prefix .. job[2], id)
    end
end

local function enqueue_dependents(prefix, parent, outcome, job_prefix, queue_prefix, ...)
    local dependents = job_prefix .. parent .. ':dependents'
    for _, id in ipairs(redis.call('SMEMBERS', dependents)) do
        local job = redis.call('HMGET', job_prefix .. id, 'status', 'origin',
            'allow_dependency_failures', 'enqueue_at_front', 'timeout', 'ttl',
            'rate_limit_key', 'rate_limit_concurrency')
        if job[1] == 'deferred' and job[2]
                and is_met(job_prefix, id, parent, outcome, job[3] == '1') then
            redis.call('SREM', dependents, id)
            enqueue(prefix, id, job, job_prefix, queue_prefix, ...)
        end
    end
end
"""

SETTLE = (
    _RUN
    + _DEPENDENTS
    + """
local begun, job_key, in_flight, queue, running, executions =
    KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, execution, token, worker, prefix, job_prefix, queue_prefix =
    ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local now, now_text, timeout, outcome, rate = ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local mark = execution .. ' ' .. token

-- Whether the job is still what this worker has to settle.
local function is_held()
    if redis.call('HDEL', begun, execution) == 1 then
        if redis.call('ZSCORE', running, execution) then
            return true
        end
        -- Somebody has called the job abandoned, unless it was canceled or deleted as it ran.
        local job = redis.call('HMGET', job_key, 'status', 'worker_name')
        return not job[1] or job[1] == 'canceled'
            or (job[1] == 'started' and (not job[2] or job[2] == worker))
    end
    if redis.call('LREM', in_flight, 1, id) == 1 then
        return true
    end
    -- The server has forgotten that the job was taken, or somebody has put it back.
    return redis.call('HGET', job_key, 'status') == 'queued'
        and redis.call('LREM', queue, 1, id) == 1
end

if redis.call('HGET', begun, 'settled') == mark then
    return 2
end
if not is_held() then
    redis.call('DEL', prefix .. ':execution:' .. execution)
    redis.call('ZREM', running, execution)
    redis.call('ZREM', prefix .. ':executions:' .. id, string.sub(execution, #id + 2))
    redis.call('SREM', executions, execution)
    if redis.call('HEXISTS', job_key, 'created_at') == 0 then
        redis.call('DEL', job_key)  -- nothing but a heartbeat of a job that is gone
    end
    return 0
end
redis.call('HSET', begun, 'settled', mark)
-- A job that was canceled as it ran, and then succeeded, sets none of its dependents free.
if outcome == 'finished' and redis.call('HGET', job_key, 'status') == 'canceled' then
    outcome = ''
end
if outcome ~= '' then
    enqueue_dependents(prefix, id, outcome, job_prefix, queue_prefix, now, now_text, timeout)
end
run(13)
if rate ~= '' then
    local status = redis.call('HGET', job_key, 'status')
    if status ~= 'queued' and status ~= 'started' then
        local slots = prefix .. ':rl:' .. rate
        redis.call('ZREM', slots .. ':allowed', id)
        fill_slots(slots, job_prefix, queue_prefix, now, now_text)
    end
end
return failure or 1
"""
)
"""Settles a job: takes it off every list of its worker, enqueues its dependents, carries out the
commands, and frees its slot of a rate limit.

KEYS: hash of begun executions, job, in-flight list, queue, registry of started jobs, RQ's set of
the worker's executions.
ARGV: job id, execution, token of who settles it, worker, RQ's prefix, prefix of jobs, prefix of
queues, now in seconds, now as RQ writes it, default time limit in seconds, outcome for the
dependents (``finished``, ``failed``, ``stopped``, or empty: none is enqueued), key of the rate
limit or empty, commands.
"""

PUT_BACK = """
local in_flight, queue, job_key = KEYS[1], KEYS[2], KEYS[3]
local id, field, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
if limit > 0 and redis.call('LPOS', in_flight, id)
        and tonumber(redis.call('HGET', job_key, field) or 0) >= limit then
    return 2
end
if redis.call('LREM', in_flight, 1, id) == 0 then
    return 0
end
if redis.call('EXISTS', job_key) == 0 or redis.call('HGET', job_key, 'status') == 'canceled' then
    return 0
end
if limit > 0 then
    redis.call('HINCRBY', job_key, field, 1)
end
redis.call('HSET', job_key, 'status', 'queued')
redis.call('LPUSH', queue, id)
return 1
"""
"""Puts a job that was not begun back to the head of its queue.

KEYS: in-flight list, queue, job.
ARGV: job id, field that counts, how often at most (0: it does not count).
Answers 0 when there is nothing to put back, 2 when it happened too often and nothing was done.
"""

TAKE_LOCK = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
"""
"""Takes a lock, or holds it longer. KEYS: the lock. ARGV: token, seconds."""

FREE_LOCK = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
    redis.call('DEL', KEYS[1])
end
"""
"""Frees a lock if it is the caller's. KEYS: the lock. ARGV: token."""
