"""Workers on other GPUs and machines. Only this package imports Ray and uses JAX across processes.

``device.workers`` distributes the heavy steps. Inspection, preparation, features and predictions are split into blocks
of images. Training is synchronous and data-parallel: each batch of ``batch_size`` images is split among all workers.
The weights differ from those of a single JAX process only by rounding. The machine that runs ``kedro run`` keeps the
catalog and records the run; workers only compute.

=========================  ====================================================================  ====================
you have                   add to ``kedro run``                                                  tested
=========================  ====================================================================  ====================
several GPUs, one machine  ``--params device.workers=all``, extras ``gpu,cluster``, JAX on CUDA  on CPU cores only
a Ray cluster              ``device.workers=all,cluster.address=auto``, on one of its machines   on a simulation of two
the same, from outside     ``device.workers=all,cluster.address=ray://<host>:10001``             all but training
=========================  ====================================================================  ====================

Each worker has an equal share of the cores and, if there are GPUs, one GPU. Every machine needs this project, Python
and the packages in the same versions, and a shared file system with ``data/`` and the photographs at the same path. The
run checks this first. Object stores are not supported.

Training on several workers is worthwhile only on GPUs: on CPUs, JAX is about ten times slower than TensorFlow. On eight
GPUs, a batch of 32 is only four images each, so raise ``finetune.training.batch_size`` and the learning rate first. If
BatchNorm learns its statistics, as in the baseline, the number of workers must divide the batch size.

If a worker dies, its block is computed again. In a training, all workers restart from the last checkpoint, at most
``cluster.max_restarts`` times. Without an address, the run starts Ray on 127.0.0.1, protected by a token. Run your own
cluster only in a network that you trust: anyone who reaches its ports can run code there.

An estimate for ImageNet (1.28 million images, 224 px), from rates measured on a few devices. It has not been run:

=====================================  ================  =================  ====================
step                                   1 GPU, 16 cores   8 GPUs, 128 cores  64 GPUs, 1,024 cores
=====================================  ================  =================  ====================
inspect all images                     3 min             24 s               3 s
prepare them (193 GB on disk)          5 min             40 s               5 s
an epoch of fine-tuning, B0            6 min             42 s               5 s
read from the file system in training  0.6 GB/s          4.6 GB/s           37 GB/s
=====================================  ================  =================  ====================

The head is the bottleneck, because one process fits it: 11 GB of features, about three hours.
"""
