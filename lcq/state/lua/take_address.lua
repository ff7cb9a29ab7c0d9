-- take_address: a transfer through a one-time address begins; until it has ended nobody else may begin one.
-- KEYS  namespace
-- ARGV  digest of its token, method, bytes that were announced ("": none were), whose transfer, ms that it may take
-- RETURNS {"ok", SHA-256 or "", bytes, part, task, attempt, "1" if the call is over} | {"unknown"} | {"method", the right one} | {"used"} |
--         {"busy", ms} | {"too_large", most bytes}
local digest, method, size, holder, ms = unpack(ARGV)
local name = key("address", digest)
local a = load_hash(name)
if not a or a.method == "call" or not a.method then return {"unknown"} end
if a.method ~= method then return {"method", a.method} end
if a.used then return {"used"} end
local until_ms = number(a.held_until)
if until_ms > NOW then return {"busy", tostring(until_ms - NOW)} end
if size ~= "" and number(size) > number(a.size) then return {"too_large", a.size} end
local is_over = redis.call("HGET", key("call", a.task, a.by), "over")
if is_over and method ~= "post" then return {"unknown"} end  -- no picture is needed any more; a bill may still come
if method == "get" then  -- only what has come by this call is handed out
  local left = decoded(redis.call("HGET", key("call", a.task, a.attempt), a.part) or "", {})
  if left.sha256 ~= a.sha256 then return {"unknown"} end
end
if method == "put" and a.sha256 ~= "" then
  local users = key("lent", a.sha256)
  if redis.call("SISMEMBER", users, "-") == 1 then return {"busy", "500"} end  -- they are being removed
  -- Only who comes first can tell whether these bytes were there before: after that they may be another call's.
  if redis.call("SCARD", users) == 0 then redis.call("HSET", name, "first", "1") end
  redis.call("SADD", users, a.task .. "/" .. a.attempt .. "/" .. a.part)
  redis.call("PEXPIRE", users, CALLS_KEPT_MS)
end
redis.call("HSET", name, "holder", holder, "held_until", NOW + tonumber(ms))
return {"ok", a.sha256, a.size, a.part, a.task, a.attempt, is_over and "1" or ""}
