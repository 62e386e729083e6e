import gc
import json
import sys

DOCUMENT = json.dumps({"user": 17, "items": [{"id": i, "name": "item %d" % i, "price": i / 7} for i in range(12)]})
kept = []


def remember(request):
    kept.append(bytearray(400))


def serve(count):
    total = 0
    for _ in range(count):
        for _ in range(10):
            request = json.loads(DOCUMENT)
            total += sum(item["price"] for item in request["items"])
        remember(request)
    return total


for line in sys.stdin:
    serve(int(line.split()[1]))
    # A whole round of the collector in every window, not in one of seven.
    gc.collect()
    print("served", flush=True)
