-- open_call: the address of an attempt's call, by which its runner has one-time addresses lent (lend_address).
-- KEYS  namespace
-- ARGV  id, attempt, node, digest of the address's token, ms that it is good for, terms (JSON: price_call, price_s,
--       timeout_s, by which a bill that comes late is read)
-- RETURNS {"ok"} | {"missing"} | {"fenced", status}
local id, n, node, digest, ms, terms = unpack(ARGV)
local t = load_task(id)
if not t then return {"missing"} end
if t.status ~= STATE.PROCESSING or t.attempt ~= n or t.node ~= node then return {"fenced", t.status} end
local name, book = key("address", digest), key("call", id, n)
redis.call("HSET", name, "method", "call", "task", id, "attempt", n)
redis.call("PEXPIRE", name, ms)
redis.call("HSET", book, "terms", terms)
redis.call("PEXPIRE", book, CALLS_KEPT_MS)
return {"ok"}
