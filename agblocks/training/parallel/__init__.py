"""One model trained by several processes: each takes its share of the same batches, and the result is the same.

`processes` says where this process stands and joins those of a cluster, `launch` starts them on one machine, `shares`
puts outputs together before the loss, `norms` takes statistics over all of a batch, `strategies` are Lightning's.
Nothing here is imported until a training begins.
"""
