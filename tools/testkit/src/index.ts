/** What the tests of several packages share. */
export { compareLayout, evaluate, kernelHeader } from './gcc.js';
export { runReadmeExample } from './readme.js';
