# A Ruby program that keeps 100,000 objects and 100,000 strings: its own heap grows by some 8 MiB, malloc's
# by 12 MiB.
$stdout.sync = true
puts "ready #{Process.pid}"
$stdin.gets
$kept = []

def keep_objects
  100_000.times do |i|
    $kept << Object.new
    $kept << "string #{i} " * 8
  end
end

keep_objects
puts '{"pid":0,"sites":[]}'
$stdin.gets
