import sys
from fluent import sender
logger = sender.FluentSender('shop', host='127.0.0.1', port=int(sys.argv[1]), nanosecond_precision=True)
for i in range(100):
    assert logger.emit('web', {'message': 'python line %d' % i, 'i': i}), logger.last_error
logger.close()
