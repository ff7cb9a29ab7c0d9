-- Whole records as they are, for backups (lcq/backup.py). Loaded behind the prelude.

local READS = {
  string = function(name) return redis.call("GET", name) end,
  hash = function(name) return redis.call("HGETALL", name) end,
  list = function(name) return redis.call("LRANGE", name, 0, -1) end,
  set = function(name) return redis.call("SMEMBERS", name) end,
  zset = function(name) return redis.call("ZRANGE", name, 0, -1, "WITHSCORES") end,
}

-- Adds the id, the fields and the attempts of a task to a list; no fields where there is none (any more).
local function copy_task(id, into)
  local fields = redis.pcall("HGETALL", key("task", id))
  local attempts = redis.pcall("LRANGE", key("attempts", id), 0, -1)
  into[#into + 1] = id
  into[#into + 1] = fields.err and {} or fields
  into[#into + 1] = attempts.err and {} or attempts
end

-- Adds the name, the type, the time to live (ms; -1: none) and the value of a key to a list; nothing where there is none.
local function copy_key(short, into)
  local name = key(short)
  local kind = redis.call("TYPE", name).ok
  if not READS[kind] then return end
  into[#into + 1] = short
  into[#into + 1] = kind
  into[#into + 1] = redis.call("PTTL", name)
  into[#into + 1] = READS[kind](name)
end
