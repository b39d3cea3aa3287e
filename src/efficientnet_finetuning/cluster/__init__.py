"""Workers on other GPUs and machines. No other room knows Ray, or JAX' way of computing over several processes.

``device.workers`` distributes the heavy steps over several processes. Inspecting and preparing images, features and
predictions are split into blocks of images. Training is synchronous and data-parallel: every batch is split among all
workers, ``batch_size`` is that of the whole batch, and weights differ from those of one JAX process by rounding alone.
The machine where ``kedro run`` is typed keeps the catalog and talks to MLflow; workers only compute.

=========================  ====================================================================  ====================
you have                   add to ``kedro run``                                                  tested
=========================  ====================================================================  ====================
several GPUs, one machine  ``--params device.workers=all``, extras ``gpu,cluster``, JAX on CUDA  on CPU cores only
a Ray cluster              ``device.workers=all,cluster.address=auto``, on one of its machines   on a simulation of two
the same, from outside     ``device.workers=all,cluster.address=ray://<host>:10001``             all but training
=========================  ====================================================================  ====================

A worker has one GPU and its share of the cores or, without GPUs, its share of the cores. Every machine needs this
project, Python and the packages in the same versions, and a shared file system on which ``data/`` and the photographs
have the same path. The run checks that before it starts. Object stores are not supported.

Training on several workers pays off on GPUs only: on CPUs, JAX is about ten times slower than TensorFlow. With eight
GPUs a batch of 32 is four images each, so raise ``finetune.training.batch_size`` first, and the learning rate with it.
Where BatchNorm learns its statistics, as in the baseline, the number of workers must divide the batch.

A worker that dies costs its block. In a training all workers restart from the last checkpoint, at most
``cluster.max_restarts`` times. Without an address, Ray runs for the duration of the run, on 127.0.0.1 and behind a
token. Run a cluster of your own only in a network that you trust: who reaches its ports can run code there.

An estimate for ImageNet (1.28 million images, 224 px), from rates measured on a few devices; nobody has run it:

=====================================  ================  =================  ====================
step                                   1 GPU, 16 cores   8 GPUs, 128 cores  64 GPUs, 1,024 cores
=====================================  ================  =================  ====================
inspect all images                     3 min             24 s               3 s
prepare them (193 GB on disk)          5 min             40 s               5 s
an epoch of fine-tuning, B0            6 min             42 s               5 s
read from the file system in training  0.6 GB/s          4.6 GB/s           37 GB/s
=====================================  ================  =================  ====================

The head breaks first, since one process fits it: 11 GB of features, about three hours.
"""
