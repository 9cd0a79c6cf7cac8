"""Plain Adam by TensorFlow's fused kernel, one operation a variable; several times as fast as Keras's on small networks."""

from stages.training.backend import keras, tf


class _FusedAdam(keras.optimizers.Adam):
    """Keras's Adam with one kernel a variable in place of a dozen; the same slots, so that its state is Adam's."""

    def apply(self, grads, trainable_variables=None):
        step = tf.cast(self.iterations.value + 1, keras.config.floatx())
        self._powers = tf.pow(self.beta_1, step), tf.pow(self.beta_2, step)  # once, not for each variable
        super().apply(grads, trainable_variables)

    def update_step(self, gradient, variable, learning_rate):
        i = self._get_variable_index(variable)
        beta1_power, beta2_power = self._powers
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[i].value.handle,
            v=self._velocities[i].value.handle,
            beta1_power=beta1_power,
            beta2_power=beta2_power,
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


def fused(network: keras.Model) -> keras.optimizers.Optimizer:
    """Return the optimizer to train `network` with: its own or, in place of plain Adam, the same with a fused kernel."""
    optimizer = network.optimizer
    adam = type(optimizer) is keras.optimizers.Adam
    if not adam or optimizer.amsgrad or optimizer.weight_decay or optimizer.gradient_accumulation_steps:
        return optimizer
    fused = _FusedAdam.from_config(optimizer.get_config())
    fused.build(network.trainable_variables)
    return fused
