// A Node.js program whose JavaScript heap grows by some 30 MiB, and 8 MiB of buffers beside it.
const kept = [];

function keepObjects() {
  for (let i = 0; i < 300000; i++) kept.push({ id: i, name: 'name ' + i, more: [i, i + 1] });
}

function keepBuffers() {
  for (let i = 0; i < 512; i++) kept.push(Buffer.alloc(16 << 10));
}

let lines = 0;
require('readline').createInterface({ input: process.stdin }).on('line', () => {
  if (++lines > 1) process.exit(0);
  keepObjects();
  keepBuffers();
  console.log('{"pid":0,"sites":[]}');
}).on('close', () => process.exit(0));
console.log('ready ' + process.pid);
