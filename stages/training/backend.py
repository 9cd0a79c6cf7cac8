"""TensorFlow and Keras, imported quietly and configured so that trainings are deterministic to the bit.

Import `tf` and `keras` from here, never directly: the settings below have no effect once TensorFlow has
started.
"""

from stages.training.quiet import quiet

with quiet():
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")

    # One thread per operation, one operation at a time: no sum depends on the number of cores, and the many
    # small operations of a small network run fastest this way. The cores run trainings side by side.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    GPUS = tf.config.list_physical_devices("GPU")
    for _device in GPUS:
        tf.config.experimental.set_memory_growth(_device, True)
        tf.config.experimental.enable_op_determinism()  # on a CPU, one thread is enough
    tf.config.list_logical_devices()  # starts the devices, which logs messages

    import keras
    from keras.src.random import seed_generator

# Keras's defaults, even if ~/.keras/keras.json of this machine has others; model.py may change them
keras.config.set_floatx("float32")
keras.config.set_epsilon(1e-7)
keras.config.set_image_data_format("channels_last")
keras.config.set_dtype_policy("float32")

DEVICE = "GPU" if GPUS else "CPU"

__all__ = ["DEVICE", "keras", "seed_generator", "tf"]
