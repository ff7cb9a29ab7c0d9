-- restore_end: opens a namespace again that a backup was put into.
-- KEYS  namespace
-- ARGV  format (that the state has), cluster (its id), then the queues there are
-- RETURNS {"ok"}
for i = 3, #ARGV do close_book(ARGV[i]) end
for _, job in ipairs(redis.call("ZRANGE", key("jobs"), 0, -1)) do
  if redis.call("EXISTS", key("ix", "job", job)) == 0 then
    redis.call("DEL", key("job", job))
    redis.call("ZREM", key("jobs"), job)
    redis.call("HDEL", key("paused"), job)
  end
end
redis.call("SET", key("cluster"), ARGV[2])
redis.call("SET", key("format"), ARGV[1])
return {"ok"}
