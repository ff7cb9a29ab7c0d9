-- Order within a user, and what is kept back because of a quota. Loaded behind the prelude.
--
-- A lane's scores say whose turn it is: they are places that belong to users. Which of a user's tasks gets a place that
-- comes up is decided then, by fair queueing between its jobs: `turn:<owner>:<band>:<user>` has the jobs by their tags,
-- `line:…:<job>` the tasks of one in their order. So a second job does not wait for the whole of the first one's ten
-- thousand tasks, and no user gets more by having more jobs. Tasks without a job are one.

local function turn_of(t)
  return key("turn", owner_of(t), t.priority, t.user)
end

local function line_of(t)
  return key("line", owner_of(t), t.priority, t.user, t.job or "")
end

local function leave_line_of(turn, line, job, id)
  redis.call("ZREM", line, id)
  if redis.call("EXISTS", line) == 0 then redis.call("ZREM", turn, job) end
end

-- A job is ordered by the seconds it has had. A new one begins with what the last of its user's others has, and half a
-- task: so it starts soon, but an endless row of new ones keeps no old one from moving.
join_line = function(id, t)
  local turn, job = turn_of(t), t.job or ""
  redis.call("ZADD", line_of(t), number(t.place), id)
  if not redis.call("ZSCORE", turn, job) then
    local first = redis.call("ZRANGE", turn, 0, 0, "WITHSCORES")
    redis.call("ZADD", turn, number(first[2]) + number(t.cost) / 2, job)
  end
end

-- Keeps books of whose task starts: the job's next one is due later by as much.
local function charge_job(t)
  redis.call("ZADD", turn_of(t), "XX", "INCR", number(t.cost), t.job or "")
end

-- The book of a queue forgets users that virtual time has caught up with: they start anew as if they never were here.
-- And where virtual time stands still because new users come and come, it keeps so many and no more.
forget_shares = function(book, virtual)
  local size = redis.call("HLEN", book)
  if size < 64 then return end
  local least, farthest
  local some = redis.call("HRANDFIELD", book, size > MOST_SHARES and 16 or 2, "WITHVALUES")
  for i = 1, #some, 2 do
    if some[i]:find(":", 1, true) then  -- else it is the book's own
      local finish = number(some[i + 1])
      if finish <= virtual then
        redis.call("HDEL", book, some[i])
      elseif not least or finish < farthest then
        least, farthest = some[i], finish
      end
    end
  end
  if least and size > MOST_SHARES then redis.call("HDEL", book, least) end
end

---------------------------------------------------------------- quotas of what runs

-- Where a user has as much running as it may, its tasks that are met at the head of a lane are kept back, with their
-- scores, so that nobody stands behind them; `over:<user>` has the lanes beside which some lie, `overs` those users.
-- With each of its attempts that ends, the first of each lane goes back; recall_tasks sees to the rest.

local function tidy_back(t, owner, lane)
  if redis.call("EXISTS", key("back", owner, lane, t.user)) == 1 then return end
  redis.call("SREM", key("over", t.user), owner .. ":" .. lane)
  if redis.call("EXISTS", key("over", t.user)) == 0 then redis.call("SREM", key("overs"), t.user) end
end

leave_line = function(id, t)
  leave_line_of(turn_of(t), line_of(t), t.job or "", id)
  if t.back then
    tidy_back(t, owner_of(t), lane_name(t))
    redis.call("HDEL", key("task", id), "back")
    t.back = nil
  end
end

local function keep_back(id, t)
  needs_format_3()
  take_from_lane(id, t)
  t.back = "1"
  redis.call("HSET", key("task", id), "back", "1")
  redis.call("ZADD", lane_of(t), t.score, id)
  redis.call("SADD", key("over", t.user), owner_of(t) .. ":" .. lane_name(t))
  redis.call("SADD", key("overs"), t.user)
end

-- Up to `most` tasks of each lane go back to their places.
local function call_back(user, most)
  for _, place in ipairs(redis.call("SMEMBERS", key("over", user))) do
    local back = key("back", place, user)
    for _, id in ipairs(redis.call("ZRANGE", back, 0, most - 1)) do
      local t = load_listed(id)
      if t and t.status == STATE.QUEUED and t.back then
        redis.call("ZREM", back, id)
        redis.call("HDEL", key("task", id), "back")
        t.back = nil
        put_into_lane(id, t)
      else
        redis.call("ZREM", back, id)  -- damaged, and isolated just now
      end
    end
    local owner, lane = place:match("^([^:]*):(.*)$")
    tidy_back({user = user}, owner, lane)
  end
end

-- `runs` has whose each running task is, `running` how many of a user's there are.
begin_running = function(id, t)
  if redis.call("HSETNX", key("runs"), id, t.user) == 1 then redis.call("HINCRBY", key("running"), t.user, 1) end
end

end_running = function(id, user)
  if redis.call("HDEL", key("runs"), id) == 0 then return end
  if redis.call("HINCRBY", key("running"), user, -1) <= 0 then redis.call("HDEL", key("running"), user) end
  call_back(user, 1)
end

local function end_running_of_whomever(id)
  local user = redis.call("HGET", key("runs"), id)
  if user then end_running(id, user) end
end

local function running_of(user)
  return number(redis.call("HGET", key("running"), user))
end

-- How many attempts a user may have running; nil: as many as it likes. `limits`: {default, users}, or nil.
local function most_running(limits, user)
  if not limits then return nil end
  return limits.users[user] or limits.default
end

-- Takes an id off all lists of this file, whatever its record says.
local function unlist_order(id, users, jobs, owners)
  end_running_of_whomever(id)
  for user in pairs(users) do
    for owner in pairs(owners) do
      for band in pairs(BANDS) do
        local turn = key("turn", owner, band, user)
        for job in pairs(jobs) do leave_line_of(turn, key("line", owner, band, user, job), job, id) end
      end
    end
    for _, place in ipairs(redis.call("SMEMBERS", key("over", user))) do
      redis.call("ZREM", key("back", place, user), id)
      local owner, lane = place:match("^([^:]*):(.*)$")
      tidy_back({user = user}, owner, lane)
    end
  end
end
