// wgnorm: batch normalization and its family on anyone's GPUDevice.

export { Context, createContext, type ContextOptions, type Operations } from "./context.js";
export { WgnormError, type ErrorKind } from "./errors.js";
export { Operation, Prepared, type Range } from "./operation.js";
export type { Capabilities, Recipe, Recipes } from "./planner.js";
export { Tensor, type DType } from "./tensor.js";
export { Layer, Mask, maskOf, type Forward, type Gradients, type Input } from "./layer.js";
export {
    batchNorm, derf, dynamicTanh, groupNorm, instanceNorm, l2Norm, layerNorm, meanVarianceNorm, rmsNorm, scaleNorm, weightNorm, weightStandardization,
    type AxesOptions, type BareOptions, type BatchNormOptions, type LayerOptions, type Layout,
} from "./layers.js";
export { NAMINGS, loadLayer, readSafetensors, saveLayer, writeSafetensors, type Entry, type Naming, type Rebias } from "./safetensors.js";
