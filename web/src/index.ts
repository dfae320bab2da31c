// wgnorm: batch normalization and its family on anyone's GPUDevice.

export { Context, createContext, type ContextOptions, type Operations } from "./context.js";
export { WgnormError, type ErrorKind } from "./errors.js";
export { Operation, Prepared, type Range } from "./operation.js";
export type { Capabilities, Recipe, Recipes } from "./planner.js";
export { Tensor, type DType } from "./tensor.js";
export { Layer, batchNorm, derf, dynamicTanh, groupNorm, instanceNorm, layerNorm, rmsNorm, type BatchNormOptions, type Gradients, type Input, type LayerOptions, type Layout } from "./layers.js";
export { NAMINGS, loadLayer, readSafetensors, saveLayer, writeSafetensors, type Entry, type Naming, type Rebias } from "./safetensors.js";
