/**
 * The vfio-user protocol, server and client. Facts have the entry point `@siov/vfio-user/protocol`. Source: QEMU, docs/interop/vfio-user.rst.
 */
export type { Mapping } from './backing.js';
export {
  type ClientOptions,
  type Reply,
  VfioUserClient,
} from './client.js';
export { type Decoded, decode, describe } from './decode.js';
export { DmaSpace } from './dma.js';
export { ConnectionLostError, VfioUserError } from './errors.js';
export type { ClientMemory, ClientRegion, SmallWrite } from './exchanges.js';
export { NativeMissingError, native, Signals } from './native.js';
export { NetServer } from './net.js';
export { NetClient } from './net-client.js';
export type { PeerName } from './peers.js';
export { peers } from './peers.js';
export type * from './ports.js';
export type { Observer, ServedDevice, ServerOptions } from './server.js';
export { SocketError, VfioUserServer } from './server.js';
export { type ServerModule, type ServerParts, ServerThread, type ThreadOptions } from './thread.js';
export { readWire, type WireEntry, WireFormatError, WireWriter } from './wire.js';
