// A training step of TensorFlow.js beside ours, on its own device: y, dx, dgamma and dbeta of batch norm in training.

import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-core/dist/register_all_gradients";
import "@tensorflow/tfjs-backend-webgpu";
import { openTfjs } from "wgnorm/tfjs";

export interface Beside {
    ours: number;
    theirs: number;
    copies: boolean;
    /** The largest difference between the gradients of x. */
    difference: number;
}

export async function beside(shape: [number, number, number, number], steps = 3): Promise<Beside> {
    if (!(await tf.setBackend("webgpu"))) throw new Error("TensorFlow.js has no WebGPU here");
    const wgnorm = await openTfjs(tf);
    const channels = shape[3];
    const layer = wgnorm.batchNorm(channels);
    await layer.build(shape);
    const [x, dy] = [tf.randomNormal(shape, 1, 2, "float32", 1), tf.randomNormal(shape, 0, 1, "float32", 2)];
    const [gamma, beta] = [tf.ones([channels]), tf.zeros([channels])];
    const own = (x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) => {
        const { mean, variance } = tf.moments(x, [0, 1, 2]);
        return tf.batchNorm(x as tf.Tensor4D, mean as tf.Tensor1D, variance as tf.Tensor1D, beta as tf.Tensor1D, gamma as tf.Tensor1D, 1e-5);
    };
    // Their gradient is asked for at dy; of ours the parameters are the layer's own variables.
    const theirs = () => tf.grads(own)([x, gamma, beta], dy);
    const ours = () => {
        const { gamma, beta } = layer as unknown as { gamma: tf.Variable; beta: tf.Variable };
        return tf.grads((x: tf.Tensor, ..._: tf.Tensor[]) => layer.apply(x))([x, gamma, beta], dy);
    };
    const time = async (step: () => tf.Tensor[]) => {
        const samples = [];
        for (let i = 0; i <= steps; i += 1) {
            const started = performance.now();
            const gradients = step();
            // A few values, which are there when all are.
            await tf.slice(gradients[1]!, [0], [1]).data();
            samples.push(performance.now() - started);
            tf.dispose(gradients);
        }
        return samples.slice(1).sort((a, b) => a - b)[steps >> 1]!;
    };
    const [mine, yours] = [ours(), theirs()];
    const difference = (await tf.max(tf.abs(tf.sub(mine[0]!, yours[0]!))).data())[0]!;
    tf.dispose([mine, yours]);
    const result = { ours: await time(ours), theirs: await time(theirs), copies: wgnorm.copies, difference };
    layer.dispose();
    tf.dispose([x, dy, gamma, beta]);
    return result;
}
