// What is thrown: one class, with a kind to switch on.

/** What can go wrong. The planner's are those of the Rust crate's `Error` by name. */
export type ErrorKind = "Spec" | "Shape" | "Mask" | "SingleValue" | "Operand" | "Misaligned" | "BufferTooSmall" | "BufferUsage" | "Shared" | "Destroyed" | "DeviceLost" | "Validation" | "NotReady" | "Backend" | "Unsupported" | "OutOfMemory" | (string & {});

/** An error of this package: `kind` says which, `message` what was expected and what was got. */
export class WgnormError extends Error {
    override readonly name = "WgnormError";
    constructor(readonly kind: ErrorKind, message: string) {
        super(message);
    }
}
