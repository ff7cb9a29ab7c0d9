-- lend_address: an address that is good for one transfer, by one method, for a while.
-- KEYS  namespace
-- ARGV  digest of the call's token, digest of the new one's, method (get, put, post), part (what of the call it is:
--       image, mask, result:<asked>, reply:<digest>), ms that it is good for, SHA-256 of what goes through it ("": not
--       known yet), bytes of that (or the most of them), most addresses of an attempt, attempt whose part it is
-- RETURNS {"ok"} | {"unknown"} | {"full"}
local call = load_hash(key("address", ARGV[1]))
if not call or call.method ~= "call" then return {"unknown"} end
local book = key("call", call.task, call.attempt)
if redis.call("HGET", book, "over") then return {"unknown"} end
if redis.call("HINCRBY", book, "lent", 1) > tonumber(ARGV[8]) then return {"full"} end
redis.call("PEXPIRE", book, CALLS_KEPT_MS)
local name = key("address", ARGV[2])
redis.call("HSET", name, "method", ARGV[3], "part", ARGV[4], "sha256", ARGV[6], "size", ARGV[7],
  "task", call.task, "attempt", ARGV[9] ~= "" and ARGV[9] or call.attempt, "by", call.attempt)
redis.call("PEXPIRE", name, ARGV[5])
return {"ok"}
