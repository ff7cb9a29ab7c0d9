-- restore_key: puts a key of a backup, or a piece of one, back as it was.
-- KEYS  namespace
-- ARGV  name, type, ms to live (-1: for ever), its values (JSON: as copy_keys answered them; of a stream {id, {field, value, …}}, …)
-- RETURNS {"ok"}
-- A node comes back as one that is offline: whether it lives its next hello tells. It is known for a day from now on.
local name, kind, ttl, values = key(ARGV[1]), ARGV[2], tonumber(ARGV[3]), cjson.decode(ARGV[4])
if kind == "string" then
  redis.call("SET", name, values)
elseif kind == "hash" then
  redis.call("HSET", name, unpack(values))
elseif kind == "list" then
  redis.call("RPUSH", name, unpack(values))
elseif kind == "set" then
  redis.call("SADD", name, unpack(values))
elseif kind == "zset" then
  for i = 1, #values, 2 do
    redis.call("ZADD", name, ARGV[1] == "nodes" and string.format("%.0f", NOW) or values[i + 1], values[i])
  end
elseif kind == "stream" then
  for _, entry in ipairs(values) do redis.call("XADD", name, entry[1], unpack(entry[2])) end
end
if ARGV[1]:sub(1, 5) == "node:" then
  redis.call("HSET", name, "status", "offline", "why", "the state was restored from a backup")
end
if ttl > 0 then redis.call("PEXPIRE", name, ttl) end
return {"ok"}
