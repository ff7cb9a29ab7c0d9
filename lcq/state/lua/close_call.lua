-- close_call: an attempt's call is over: its addresses are good for nothing any more, but for the one of its bill.
-- KEYS  namespace
-- ARGV  digest of the call's token, SHA-256 … (those that this has answered, once their bytes are removed)
-- RETURNS {"ok", SHA-256 …} | {"unknown"}
--         The sums are of what came by this attempt, and by those before it, and is in no other call. Until it is told
--         that they are removed, or for a while, nobody may bring the same bytes.
for i = 2, #ARGV do redis.call("SREM", key("lent", ARGV[i]), "-") end
if #ARGV > 1 then return {"ok"} end
local call = load_hash(key("address", ARGV[1]))
if not call or call.method ~= "call" then return {"unknown"} end
local told = {"ok"}
for n = 1, number(call.attempt) do
  local book = key("call", call.task, n)
  for part, text in pairs(load_hash(book) or {}) do
    local left = decoded(text, nil)
    if type(left) == "table" and left.sha256 then
      local users = key("lent", left.sha256)
      redis.call("SREM", users, call.task .. "/" .. n .. "/" .. part)
      if redis.call("SCARD", users) == 0 then
        redis.call("SADD", users, "-")
        redis.call("PEXPIRE", users, 60000)
        told[#told + 1] = left.sha256
      end
      redis.call("HDEL", book, part)
    end
  end
  if redis.call("EXISTS", book) == 1 then redis.call("HSET", book, "over", NOW) end
end
return told
