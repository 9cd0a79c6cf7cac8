"""TensorFlow and Keras, started without noise and set up so that trainings are deterministic.

Import `tf` and `keras` from here, never directly: the settings below only work before TensorFlow starts.
"""

from stages.training.quiet import quiet

with quiet():
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")

    # One thread for each operation, and one operation at a time: so no sum is split by the number of cores,
    # and small networks train fastest. Several cores run several trainings at the same time.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    GPUS = tf.config.list_physical_devices("GPU")
    for _device in GPUS:
        tf.config.experimental.set_memory_growth(_device, True)
        tf.config.experimental.enable_op_determinism()  # not needed on a CPU with one thread
    tf.config.list_logical_devices()  # starts the devices, the last thing that prints noise

    import keras
    from keras.src.random import seed_generator

# Keras's defaults, independent of ~/.keras/keras.json on this machine; model.py may set others
keras.config.set_floatx("float32")
keras.config.set_epsilon(1e-7)
keras.config.set_image_data_format("channels_last")
keras.config.set_dtype_policy("float32")

DEVICE = "GPU" if GPUS else "CPU"

__all__ = ["DEVICE", "keras", "seed_generator", "tf"]
