const items = Array.from({ length: 300 }, (_, i) => ({ id: i, name: 'item ' + i, price: i / 7 }));
const DOCUMENT = JSON.stringify({ user: 17, items });
const kept = [];

function remember() {
  kept.push(Buffer.alloc(400));
}

function serve(count) {
  let total = 0;
  for (let i = 0; i < count; i++) {
    const request = JSON.parse(DOCUMENT);
    total += request.items.reduce((sum, item) => sum + item.price, 0);
    remember();
  }
  return total;
}

require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
  serve(Number(line.split(' ')[1]));
  // A whole round of the collector in every window, not in one of five (--expose-gc).
  gc();
  console.log('served');
});
