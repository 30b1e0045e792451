/** What ims-irq needs from below. */

/** Registers at byte offsets; widths 1, 2, 4. */
export interface Mmio {
  read(offset: number, width: number): number;
  write(offset: number, width: number, value: number): void;
}
/** Configuration space of the function that sends the messages. */
export interface ConfigSpace {
  readonly requesterId: number;
  configRead(offset: number, width: number): number;
  configWrite(offset: number, width: number, value: number): void;
}
/** The local interrupt controller: vectors and their handlers. */
export interface Vectors {
  /** A free vector, or -1. */
  allocVector(): number;
  freeVector(vector: number): void;
  install(vector: number, handler: (vector: number) => void): void;
  remove(vector: number): void;
}
