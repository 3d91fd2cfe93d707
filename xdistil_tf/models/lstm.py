"""A bidirectional LSTM over right-padded batches, with a hand-written gradient.

Padding never reaches a state: each direction reads its tokens in its own order, so the real tokens
come first in both, and whatever is computed behind them is dropped.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import tensorflow as tf
import tf_keras

DIRECTIONS = ("forward", "backward")
_GATES = 4  # input, forget, candidate, output, in this order in every weight


class BidirectionalLSTM(tf_keras.layers.Layer):
    """Two LSTMs (Hochreiter & Schmidhuber, 1997; one bias a gate), one reading from the end.

    ```
    lstm = BidirectionalLSTM(input_dim=300, units=600, name="bilstm")
    lstm.initialise(seed=42)
    states, final = lstm(vectors, lengths)  # [B, T, 1200], [B, 1200]
    ```

    Args:
      input_dim: Width of the inputs.
      units: Width of a state of one direction.
      name: Prefix of the variables' names.
      dtype: A Keras policy. Products are taken in its compute type; cell states and gates are
        float32 always, and so are the weights.
    """

    def __init__(self, input_dim: int, units: int, name: str = "bilstm", dtype=None):
        super().__init__(name=name, dtype=dtype, autocast=False)
        self.input_dim = input_dim
        self.units = units
        shapes = {
            "kernel": (input_dim, _GATES * units),
            "recurrent_kernel": (units, _GATES * units),
            "bias": (_GATES * units,),
        }
        self._cells = {
            direction: tuple(
                self.add_weight(
                    name=f"{name}/{direction}/{kind}",
                    shape=shape,
                    initializer="zeros",
                    dtype="float32",
                    experimental_autocast=False,
                )
                for kind, shape in shapes.items()
            )
            for direction in DIRECTIONS
        }
        self.built = True

    def initialise(self, seed: int) -> None:
        """Draws the weights anew: Glorot kernels, orthogonal recurrent kernels, forget bias 1."""
        for direction in DIRECTIONS:
            kernel, recurrent, bias = self._cells[direction]
            kernel.assign(glorot(kernel, seed))
            recurrent.assign(_orthogonal(recurrent, seed))
            ones = tf.one_hot([1], _GATES, axis=0)  # the forget gate's block
            bias.assign(tf.reshape(tf.tile(ones, [1, self.units]), [-1]))

    def call(self, inputs: tf.Tensor, lengths: tf.Tensor, return_states: bool = True):
        """Runs both directions over the real tokens.

        Args:
          inputs: `[B, T, input_dim]`; what stands behind a row's length does not matter.
          lengths: int32 `[B]`, in 0..T.
          return_states: Python boolean; without the states less is computed.

        Returns:
          The states `[B, T, 2 * units]`, 0 at padding (`None` without `return_states`), and the
          final states `[B, 2 * units]`: forward after the last real token, backward after token 0;
          0 for a row without tokens. In the compute type.
        """
        inputs = tf.cast(inputs, self.compute_dtype)
        weights = [
            tf.convert_to_tensor(weight)
            for direction in DIRECTIONS
            for weight in self._cells[direction]
        ]
        order = _Order(lengths, tf.shape(inputs)[1])
        if not return_states:
            return None, _final_states(inputs, weights, order)
        states = _all_states(inputs, weights, order)
        last = tf.maximum(lengths - 1, 0)
        forward = tf.gather(states[..., : self.units], last, batch_dims=1)
        return states, tf.concat([forward, states[:, 0, self.units :]], 1)


class _Order:
    """Where each direction finds its tokens, step after step, and the way back.

    Rows are counted through `[B, T]` in `reading`, through `[T, B]` in `returning`. Steps behind a
    row's length read its token 0, so that they compute with finite values.
    """

    def __init__(self, lengths: tf.Tensor, steps: tf.Tensor):
        lengths = tf.cast(lengths, tf.int32)
        batch = tf.shape(lengths)[0]
        rows, times = tf.range(batch), tf.range(steps)
        real = times[:, tf.newaxis] < lengths  # [T, B]
        forward = tf.broadcast_to(times[:, tf.newaxis], [steps, batch])
        token = [
            tf.where(real, forward, 0),
            tf.where(real, lengths - 1 - forward, 0),
        ]
        step = [forward, tf.where(real, lengths - 1 - forward, forward)]
        self.steps = steps
        self.batch = batch
        self.reading = [rows * steps + one for one in token]  # [T, B]
        self.returning = [tf.transpose(one * batch + rows) for one in step]  # [B, T]
        self.real = real
        self.last = tf.maximum(lengths - 1, 0)
        self.last_rows = self.last * batch + rows
        self.not_empty = lengths[:, tf.newaxis] > 0

    def read(self, rows: tf.Tensor, direction: int) -> tf.Tensor:
        """`[B, T, width]` -> `[T, B, width]` in the direction's own order."""
        return tf.gather(tf.reshape(rows, [-1, rows.shape[-1]]), self.reading[direction])

    def put_back(self, rows: tf.Tensor, direction: int) -> tf.Tensor:
        """`[T * B, width]` or `[T, B, width]` -> `[B, T, width]`; the inverse of `read`."""
        return tf.gather(tf.reshape(rows, [-1, rows.shape[-1]]), self.returning[direction])


def _final_states(inputs, weights, order: _Order) -> tf.Tensor:
    """Final states of both directions, `[B, 2 * units]`."""

    @tf.custom_gradient
    def final_states(inputs, *weights):
        run = _Run(inputs, weights, order)
        rows = [tf.reshape(states, [-1, run.units]) for states in run.states]
        final = tf.concat([tf.gather(one, order.last_rows) for one in rows], 1)
        first_end = tf.reduce_min(order.last)

        def gradient(upstream):
            upstream = tf.where(order.not_empty, upstream, tf.zeros_like(upstream))
            upstream = tf.split(tf.cast(upstream, tf.float32), 2, 1)

            def upstream_at(step, direction, gradient):
                # Most steps of a batch of like lengths come before the end of every row.
                def with_ends():
                    ends = tf.cast(tf.equal(order.last, step), tf.float32)[:, tf.newaxis]
                    return gradient + upstream[direction] * ends

                return tf.cond(step >= first_end, with_ends, lambda: gradient)

            return run.gradients(upstream_at)

        return tf.where(order.not_empty, final, tf.zeros_like(final)), gradient

    return final_states(inputs, *weights)


def _all_states(inputs, weights, order: _Order) -> tf.Tensor:
    """States of both directions at every token, `[B, T, 2 * units]`, 0 at padding."""

    @tf.custom_gradient
    def all_states(inputs, *weights):
        run = _Run(inputs, weights, order)
        states = [order.put_back(one, index) for index, one in enumerate(run.states)]
        real = tf.cast(tf.transpose(order.real), inputs.dtype)[..., tf.newaxis]

        def gradient(upstream):
            halves = tf.split(upstream, 2, 2)
            mask = tf.cast(order.real, inputs.dtype)[..., tf.newaxis]
            ordered = [order.read(half, index) * mask for index, half in enumerate(halves)]

            def upstream_at(step, direction, gradient):
                return gradient + tf.cast(ordered[direction][step], tf.float32)

            return run.gradients(upstream_at)

        return tf.concat(states, 2) * real, gradient

    return all_states(inputs, *weights)


class _Run:
    """One pass over a batch: the forward loop at construction, and what its gradient needs."""

    def __init__(self, inputs: tf.Tensor, weights: Sequence[tf.Tensor], order: _Order):
        self.dtype = inputs.dtype
        self.order = order
        self.kernels = [tf.cast(weight, self.dtype) for weight in weights[0::3]]
        self.recurrent = [tf.cast(weight, self.dtype) for weight in weights[1::3]]
        self.biases = [tf.cast(weight, self.dtype) for weight in weights[2::3]]
        self.units = weights[1].shape[0]
        self.inputs = [order.read(inputs, direction) for direction in range(2)]
        self._loop()

    def _loop(self) -> None:
        zero = tf.zeros([self.order.batch, self.units])
        # A product for each gate: splitting one product's result would copy it.
        kernels = [
            tf.split(tf.concat(pair, 0), _GATES, 1)
            for pair in zip(self.kernels, self.recurrent, strict=True)
        ]
        biases = [tf.split(bias, _GATES) for bias in self.biases]

        def body(step, carried, saved):
            results = []
            for direction in range(2):
                state, cell = carried[direction]
                joined = tf.concat([self.inputs[direction][step], state], 1)
                products = [
                    tf.nn.bias_add(tf.matmul(joined, kernel), bias)
                    for kernel, bias in zip(kernels[direction], biases[direction], strict=True)
                ]
                results.append(_cell(products, cell))
            carried = [(state, cell) for *_, cell, _, state in results]
            saved = [_write(one, step, result) for one, result in zip(saved, results, strict=True)]
            return step + 1, carried, saved

        start = [(tf.cast(zero, self.dtype), zero)] * 2
        saved = [self._arrays(zero) for _ in range(2)]
        _, _, saved = tf.while_loop(
            lambda step, *_: step < self.order.steps, body, (0, start, saved)
        )
        self.saved = saved
        stacked = [one[-1].stack() for one in saved]  # [T + 1, B, units]
        self.states_before = [one[:-1] for one in stacked]
        self.states = [one[1:] for one in stacked]

    def _arrays(self, zero: tf.Tensor) -> list[tf.TensorArray]:
        """Of gates, cell, its tanh, and state; cell and state begin with that before step 0."""
        steps, shape = self.order.steps, [None, self.units]
        arrays = [tf.TensorArray(tf.float32, steps, element_shape=shape) for _ in range(_GATES)]
        cells = tf.TensorArray(tf.float32, steps + 1, element_shape=shape).write(0, zero)
        tanh = tf.TensorArray(tf.float32, steps, element_shape=shape)
        states = tf.TensorArray(self.dtype, steps + 1, element_shape=shape)
        return [*arrays, cells, tanh, states.write(0, tf.cast(zero, self.dtype))]

    def gradients(self, upstream_at) -> list[tf.Tensor]:
        """Of inputs and weights; `upstream_at(step, direction, gradient)` adds a step's own."""
        zero = tf.zeros([self.order.batch, self.units])

        def body(step, carried, products):
            for direction in range(2):
                state, cell = carried[direction]
                state = upstream_at(step, direction, state)
                gates, cell = _cell_gradient(_read(self.saved[direction], step), state, cell)
                joined = tf.concat([tf.cast(gate, self.dtype) for gate in gates], 1)
                products[direction] = products[direction].write(step, joined)
                state = tf.matmul(joined, self.recurrent[direction], transpose_b=True)
                carried[direction] = (tf.cast(state, tf.float32), cell)
            return step - 1, carried, products

        shape = [None, _GATES * self.units]
        products = [
            tf.TensorArray(self.dtype, self.order.steps, element_shape=shape) for _ in range(2)
        ]
        _, _, products = tf.while_loop(
            lambda step, *_: step >= 0, body, (self.order.steps - 1, [(zero, zero)] * 2, products)
        )
        return self._collect([tf.reshape(one.stack(), [-1, shape[1]]) for one in products])

    def _collect(self, products: list[tf.Tensor]) -> list[tf.Tensor]:
        """Gradients of inputs and weights from those of all gates, `[T * B, 4 * units]`."""
        inputs, weights = [], []
        for direction, product in enumerate(products):
            back = tf.matmul(product, self.kernels[direction], transpose_b=True)
            inputs.append(self.order.put_back(back, direction))
            ones = tf.ones([1, tf.shape(product)[0]], self.dtype)
            rows = self.inputs[direction], self.states_before[direction]
            weights += [
                tf.matmul(tf.reshape(one, [-1, one.shape[-1]]), product, transpose_a=True)
                for one in rows
            ]
            weights.append(tf.matmul(ones, product)[0])
        return [inputs[0] + inputs[1], *(tf.cast(one, tf.float32) for one in weights)]


def _cell(products: Sequence[tf.Tensor], cell: tf.Tensor) -> list[tf.Tensor]:
    """Gate products and the old cell -> gates, new cell, its tanh (float32), state."""
    dtype = products[0].dtype
    first, forget, candidate, last = (tf.cast(product, tf.float32) for product in products)
    first, forget, last = tf.sigmoid(first), tf.sigmoid(forget), tf.sigmoid(last)
    candidate = tf.tanh(candidate)
    cell = forget * cell + first * candidate
    tanh = tf.tanh(cell)
    return [first, forget, candidate, last, cell, tanh, tf.cast(last * tanh, dtype)]


def _cell_gradient(saved, state: tf.Tensor, cell: tf.Tensor):
    """Gradients of the four gates' products, and of the old cell; all float32 `[B, units]`."""
    first, forget, candidate, last, old, tanh = saved
    sigmoid_grad, tanh_grad = tf.raw_ops.SigmoidGrad, tf.raw_ops.TanhGrad
    cell = cell + tanh_grad(y=tanh, dy=state * last)
    gates = (
        sigmoid_grad(y=first, dy=cell * candidate),
        sigmoid_grad(y=forget, dy=cell * old),
        tanh_grad(y=candidate, dy=cell * first),
        sigmoid_grad(y=last, dy=state * tanh),
    )
    return gates, cell * forget


def _write(arrays: list[tf.TensorArray], step: tf.Tensor, values) -> list[tf.TensorArray]:
    shifted = (len(arrays) - 3, len(arrays) - 1)  # cell and state: place 0 is before step 0
    return [
        array.write(step + 1 if index in shifted else step, value)
        for index, (array, value) in enumerate(zip(arrays, values, strict=True))
    ]


def _read(arrays: list[tf.TensorArray], step: tf.Tensor) -> list[tf.Tensor]:
    """Gates, old cell and tanh of the new one."""
    return [array.read(step) for array in arrays[:-1]]


def glorot(variable: tf.Variable, seed: int) -> tf.Tensor:
    """Uniform values for a matrix (Glorot & Bengio, 2010), from `seed` and the variable's name."""
    limit = (6 / sum(variable.shape)) ** 0.5
    return tf.random.stateless_uniform(
        variable.shape, stateless_seed(variable.name, seed), -limit, limit
    )


def _orthogonal(variable: tf.Variable, seed: int) -> tf.Tensor:
    """Orthonormal rows, from the QR decomposition of a normal matrix (Saxe et al., 2014)."""
    rows, columns = variable.shape
    normal = tf.random.stateless_normal([columns, rows], stateless_seed(variable.name, seed))
    orthogonal, upper = tf.linalg.qr(normal)
    return tf.transpose(orthogonal * tf.sign(tf.linalg.diag_part(upper)))


def stateless_seed(name: str, seed: int) -> list[int]:
    """A seed for one variable, from the model's seed and the variable's name."""
    return [seed & 0x7FFFFFFF, zlib.crc32(name.split(":")[0].encode()) & 0x7FFFFFFF]
