-- A memtrace recording, version 1 (PRAGMA user_version). docs/src/reference/recording.md explains it.
-- Times: at_ms is milliseconds since tracing began, never going back; taken_at is the wall clock.

CREATE TABLE session (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  tool_version TEXT NOT NULL,
  host TEXT NOT NULL,
  kernel TEXT NOT NULL,
  architecture TEXT NOT NULL,
  memory_bytes INTEGER,
  writer_pid INTEGER NOT NULL,
  target_kind TEXT NOT NULL,
  target_value TEXT NOT NULL,
  started_at TEXT NOT NULL,
  interval_seconds REAL NOT NULL,
  -- NULL when the recorder did not come to its end.
  ended_at TEXT
);

-- JSON texts that many intervals share.
CREATE TABLE documents (
  id INTEGER PRIMARY KEY,
  json TEXT NOT NULL
);

-- One row a report. A key interval has a row of every stack and process; one that is not has a row
-- of those that changed since the interval before.
CREATE TABLE intervals (
  id INTEGER PRIMARY KEY,
  at_ms INTEGER NOT NULL,
  is_key INTEGER NOT NULL,
  -- The probed objects, as in the JSON report.
  coverage INTEGER NOT NULL REFERENCES documents (id),
  -- The JSON report without its stacks, processes and coverage.
  header TEXT NOT NULL,
  taken_at TEXT GENERATED ALWAYS AS (json_extract(header, '$.taken_at')) VIRTUAL,
  seconds REAL GENERATED ALWAYS AS (json_extract(header, '$.duration_seconds')) VIRTUAL,
  losses TEXT GENERATED ALWAYS AS (json_extract(header, '$.losses')) VIRTUAL,
  fraction_of_target_cpu REAL
    GENERATED ALWAYS AS (json_extract(header, '$.overhead.fraction_of_target_cpu')) VIRTUAL
);

-- One image of one process.
CREATE TABLE processes (
  id INTEGER PRIMARY KEY,
  pid INTEGER NOT NULL,
  -- Its address space, as the recorder numbered it: order among equals.
  space INTEGER NOT NULL
);

-- A process as the JSON report has it, when it changed. json is NULL once it is no longer shown.
CREATE TABLE process_samples (
  interval INTEGER NOT NULL REFERENCES intervals (id),
  process INTEGER NOT NULL REFERENCES processes (id),
  -- Its place in the report.
  place INTEGER NOT NULL,
  json TEXT,
  comm TEXT GENERATED ALWAYS AS (json_extract(json, '$.comm')) VIRTUAL,
  exe TEXT GENERATED ALWAYS AS (json_extract(json, '$.exe')) VIRTUAL,
  state TEXT GENERATED ALWAYS AS (json_extract(json, '$.state')) VIRTUAL,
  container TEXT GENERATED ALWAYS AS (json_extract(json, '$.container.id')) VIRTUAL,
  rss_bytes INTEGER GENERATED ALWAYS AS (json_extract(json, '$.rss_bytes')) VIRTUAL,
  usage_bytes INTEGER GENERATED ALWAYS AS (json_extract(json, '$.memory_usage_bytes')) VIRTUAL,
  limit_bytes INTEGER GENERATED ALWAYS AS (json_extract(json, '$.memory_limit_bytes')) VIRTUAL,
  outstanding_bytes INTEGER
    GENERATED ALWAYS AS (json_extract(json, '$.outstanding_bytes')) VIRTUAL,
  verdict TEXT GENERATED ALWAYS AS (json_extract(json, '$.verdict')) VIRTUAL,
  PRIMARY KEY (interval, process)
) WITHOUT ROWID;

CREATE TABLE modules (
  id INTEGER PRIMARY KEY,
  path TEXT NOT NULL,
  build_id TEXT,
  -- Of an object without a build id: the name and the CRC-32 of its debug file.
  debug_link TEXT,
  debug_link_crc INTEGER
);

CREATE TABLE functions (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL
);

CREATE TABLE files (
  id INTEGER PRIMARY KEY,
  path TEXT NOT NULL
);

-- One frame as it is shown; inlined ones share the address of the frame they are inlined into.
CREATE TABLE frames (
  id INTEGER PRIMARY KEY,
  function INTEGER REFERENCES functions (id),
  module INTEGER REFERENCES modules (id),
  -- In the module's file; NULL in no file.
  offset INTEGER,
  -- In the process.
  address INTEGER NOT NULL,
  file INTEGER REFERENCES files (id),
  line INTEGER,
  inlined INTEGER NOT NULL,
  allocator INTEGER NOT NULL,
  -- Why there is no function.
  reason TEXT,
  -- The address as the module's symbols state it; NULL in no file.
  stated INTEGER
);

CREATE TABLE stacks (
  id INTEGER PRIMARY KEY,
  process INTEGER NOT NULL REFERENCES processes (id),
  -- As the recorder numbered it: order among equals.
  number INTEGER NOT NULL,
  -- heap, region or fault.
  probe TEXT NOT NULL,
  -- What a region is used as: anonymous, shared, file, allocator, thread-stack or reservation.
  kind TEXT
);

-- Depth 0 is innermost.
CREATE TABLE stack_frames (
  stack INTEGER NOT NULL REFERENCES stacks (id),
  depth INTEGER NOT NULL,
  frame INTEGER NOT NULL REFERENCES frames (id),
  PRIMARY KEY (stack, depth)
) WITHOUT ROWID;

CREATE TABLE verdicts (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL
);

-- A stack's account, when it changed.
CREATE TABLE samples (
  interval INTEGER NOT NULL REFERENCES intervals (id),
  stack INTEGER NOT NULL REFERENCES stacks (id),
  -- Since tracing began.
  allocated_bytes INTEGER NOT NULL,
  freed_bytes INTEGER NOT NULL,
  allocated_objects INTEGER NOT NULL,
  freed_objects INTEGER NOT NULL,
  -- NULL: allocated less freed. With --older only what is that old.
  outstanding_bytes INTEGER,
  outstanding_objects INTEGER,
  -- When the oldest live block was allocated, as intervals.at_ms; with flag 4 its age instead.
  oldest_ms INTEGER,
  growth_bytes_per_second REAL NOT NULL,
  -- NULL: among the many that hold too little to be judged.
  verdict INTEGER REFERENCES verdicts (id),
  -- Percent.
  confidence INTEGER NOT NULL,
  -- 1 the stack is complete, 2 approximate, 4 the age stands still, 8 the stack is no longer known.
  flags INTEGER NOT NULL,
  PRIMARY KEY (interval, stack)
) WITHOUT ROWID;

-- Named moments; each has an interval of its own.
CREATE TABLE marks (
  id INTEGER PRIMARY KEY,
  interval INTEGER NOT NULL REFERENCES intervals (id),
  name TEXT NOT NULL
);

-- Amounts that are watched.
CREATE TABLE thresholds (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  json TEXT
);

-- What went wrong: OOM kills, thresholds crossed.
CREATE TABLE incidents (
  id INTEGER PRIMARY KEY,
  interval INTEGER NOT NULL REFERENCES intervals (id),
  at TEXT NOT NULL,
  kind TEXT NOT NULL,
  pid INTEGER,
  json TEXT NOT NULL
);

-- Every moment that can be asked for.
CREATE VIEW moments AS
  SELECT i.id AS interval, i.taken_at, i.seconds, m.name AS mark
  FROM intervals i LEFT JOIN marks m ON m.interval = i.id;

-- Memory of every process over time, where it changed.
CREATE VIEW usage AS
  SELECT i.taken_at, i.seconds, p.pid, s.comm, s.state, s.rss_bytes, s.usage_bytes, s.limit_bytes,
         s.outstanding_bytes, s.verdict
  FROM process_samples s
  JOIN intervals i ON i.id = s.interval
  JOIN processes p ON p.id = s.process
  WHERE s.json IS NOT NULL;

-- A stack in one line, innermost first, without the allocator's frames.
CREATE VIEW stack_names AS
  SELECT stack, group_concat(name, ' < ') AS frames
  FROM (SELECT sf.stack,
               coalesce(fn.name, m.path || '+' || printf('0x%x', f.offset),
                        printf('0x%x', f.address))
                 || coalesce(' (' || fi.path || ':' || f.line || ')', '') AS name
        FROM stack_frames sf
        JOIN frames f ON f.id = sf.frame
        LEFT JOIN functions fn ON fn.id = f.function
        LEFT JOIN modules m ON m.id = f.module
        LEFT JOIN files fi ON fi.id = f.file
        WHERE NOT f.allocator
        ORDER BY sf.stack, sf.depth)
  GROUP BY stack;

-- What every stack held over time, where it changed.
CREATE VIEW stack_history AS
  SELECT s.stack, p.pid, i.taken_at, i.seconds,
         CASE WHEN s.flags & 8 THEN 0
              ELSE coalesce(s.outstanding_bytes, max(s.allocated_bytes - s.freed_bytes, 0))
         END AS outstanding_bytes,
         s.allocated_bytes, s.freed_bytes, v.name AS verdict, k.probe, k.kind
  FROM samples s
  JOIN intervals i ON i.id = s.interval
  JOIN stacks k ON k.id = s.stack
  JOIN processes p ON p.id = k.process
  LEFT JOIN verdicts v ON v.id = s.verdict;

-- The end of the recording: what every stack held last.
CREATE VIEW last_stacks AS
  SELECT s.stack, p.pid,
         coalesce(s.outstanding_bytes, max(s.allocated_bytes - s.freed_bytes, 0))
           AS outstanding_bytes,
         coalesce(s.outstanding_objects, max(s.allocated_objects - s.freed_objects, 0))
           AS outstanding_objects,
         s.growth_bytes_per_second, v.name AS verdict, s.confidence, k.probe, k.kind
  FROM (SELECT stack, max(interval) AS interval FROM samples
        WHERE interval >= (SELECT max(id) FROM intervals WHERE is_key) GROUP BY stack) latest
  JOIN samples s ON s.interval = latest.interval AND s.stack = latest.stack
  JOIN stacks k ON k.id = s.stack
  JOIN processes p ON p.id = k.process
  LEFT JOIN verdicts v ON v.id = s.verdict
  WHERE NOT s.flags & 8;

-- The fastest growing stacks at the end, with their names.
CREATE VIEW top_growers AS
  SELECT l.pid, l.outstanding_bytes, l.growth_bytes_per_second, l.verdict, n.frames, l.probe, l.kind
  FROM last_stacks l LEFT JOIN stack_names n ON n.stack = l.stack
  WHERE l.growth_bytes_per_second > 0
  ORDER BY l.verdict = 'growing' DESC, l.growth_bytes_per_second DESC;
