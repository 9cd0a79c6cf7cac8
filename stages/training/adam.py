"""Plain Adam with TensorFlow's fused kernel, several times as fast as Keras's Adam."""

from stages.training.backend import keras, tf


class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam with one operation per variable instead of a dozen; its state is the same as Adam's.

    Keras updates variables of half precision: in that type, the kernel would round 1 - 0.999 to 0.
    """

    def apply(self, grads, trainable_variables=None):
        slots = ([v for v in self.variables if v.name.endswith(name)] for name in ("_momentum", "_velocity"))
        self._slots = {v.value.ref(): pair for v, *pair in zip(trainable_variables, *slots, strict=True)}
        self._powers = {}  # computed once, not for each variable
        for dtype in {v.value.dtype for v in trainable_variables} & {tf.float32, tf.float64}:
            step = tf.cast(self.iterations.value + 1, dtype)
            betas = tf.constant(self.beta_1, dtype), tf.constant(self.beta_2, dtype)
            self._powers[dtype] = [tf.pow(beta, step) for beta in betas]
        super().apply(grads, trainable_variables)

    def update_step(self, gradient, variable, learning_rate):
        if variable.dtype not in self._powers:
            super().update_step(gradient, variable, learning_rate)
            return
        momentum, velocity = self._slots[variable.ref()]
        beta1_power, beta2_power = self._powers[variable.dtype]
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=momentum.value.handle,
            v=velocity.value.handle,
            beta1_power=beta1_power,
            beta2_power=beta2_power,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=tf.constant(self.beta_1, variable.dtype),
            beta2=tf.constant(self.beta_2, variable.dtype),
            epsilon=tf.constant(self.epsilon, variable.dtype),
            grad=tf.cast(tf.convert_to_tensor(gradient), variable.dtype),
        )


def fuse(optimizer: keras.optimizers.Optimizer) -> None:
    """Make a plain Adam use the fused kernel; any other optimizer is left unchanged."""
    plain = type(optimizer) is keras.optimizers.Adam
    if plain and not (optimizer.amsgrad or optimizer.weight_decay or optimizer.gradient_accumulation_steps):
        optimizer.__class__ = FusedAdam  # keeps its state, and any kind of learning rate
