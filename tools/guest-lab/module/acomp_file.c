// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * A file through the kernel's compression interface.
 *
 * Loading this module compresses or decompresses one file with the named driver (acomp); its parameter `result` says what came of it. The file is
 * cut into pieces, of which several are under way at once; each becomes a stream of its own. A packed file has in front of each piece its packed and
 * its plain size, 32 bits each, little endian.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/crypto.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/unaligned.h>
#include <linux/vmalloc.h>
#include <crypto/acompress.h>

static char *driver = "deflate-iaa";
module_param(driver, charp, 0444);
MODULE_PARM_DESC(driver, "name of the algorithm, or of the driver that has it");
static char *from;
module_param(from, charp, 0444);
static char *to;
module_param(to, charp, 0444);
static bool decompress;
module_param(decompress, bool, 0444);
static unsigned int piece = 16384;
module_param(piece, uint, 0444);
MODULE_PARM_DESC(piece, "bytes of the plain file in one request, at most 1 MiB");
static unsigned int depth = 4;
module_param(depth, uint, 0444);
MODULE_PARM_DESC(depth, "requests under way at once, at most 16");
static unsigned int requests;
module_param(requests, uint, 0444);
MODULE_PARM_DESC(requests, "requests made");
static int result;
module_param(result, int, 0444);
MODULE_PARM_DESC(result, "0, or a negative errno");

#define MOST_BYTES (1U << 20)
#define MOST_JOBS 16
#define HEADER 8

struct job {
	struct acomp_req *request;
	struct crypto_wait wait;
	struct scatterlist source, destination;
	u8 *in, *out;
	unsigned int plain; /* bytes */
	int answer;
};
static struct job jobs[MOST_JOBS];

static int make(struct crypto_acomp *tfm, struct job *job)
{
	/* One piece of memory each: what accelerators take. Bytes that cannot be compressed become more. */
	job->in = kmalloc(2 * piece, GFP_KERNEL);
	job->out = kmalloc(2 * piece, GFP_KERNEL);
	job->request = acomp_request_alloc(tfm);
	return job->in && job->out && job->request ? 0 : -ENOMEM;
}

static void unmake(struct job *job)
{
	if (job->request)
		acomp_request_free(job->request);
	kfree(job->in);
	kfree(job->out);
}

/* Takes the next piece of the file; returns the bytes that it takes up there, or an errno. */
static ssize_t take(struct job *job, const u8 *bytes, size_t left)
{
	unsigned int length, room;
	size_t skip = 0;

	if (decompress) {
		if (left < HEADER)
			return -EINVAL;
		length = get_unaligned_le32(bytes);
		job->plain = get_unaligned_le32(bytes + 4);
		skip = HEADER;
		if (length > left - HEADER || length > 2 * piece || job->plain > 2 * piece)
			return -EINVAL;
		room = job->plain;
	} else {
		length = min_t(size_t, piece, left);
		job->plain = length;
		room = 2 * piece;
	}
	memcpy(job->in, bytes + skip, length);
	sg_init_one(&job->source, job->in, length);
	sg_init_one(&job->destination, job->out, room);
	crypto_init_wait(&job->wait);
	acomp_request_set_params(job->request, &job->source, &job->destination, length, room);
	acomp_request_set_callback(job->request, CRYPTO_TFM_REQ_MAY_BACKLOG | CRYPTO_TFM_REQ_MAY_SLEEP, crypto_req_done, &job->wait);
	job->answer = decompress ? crypto_acomp_decompress(job->request) : crypto_acomp_compress(job->request);
	requests++;
	return skip + length;
}

static int put(struct file *file, loff_t *at, const void *bytes, size_t length)
{
	ssize_t done = kernel_write(file, bytes, length, at);

	return done == length ? 0 : done < 0 ? done : -EIO;
}

static int finish(struct job *job, struct file *file, loff_t *at)
{
	unsigned int length;
	u8 header[HEADER];
	int error;

	/* Whatever comes of it: the request is under way until then. */
	error = crypto_wait_req(job->answer, &job->wait);
	if (error)
		return error;
	length = job->request->dlen;
	if (decompress)
		return length == job->plain ? put(file, at, job->out, length) : -EBADMSG;
	put_unaligned_le32(length, header);
	put_unaligned_le32(job->plain, header + 4);
	return put(file, at, header, HEADER) ?: put(file, at, job->out, length);
}

static int convert(struct crypto_acomp *tfm, const u8 *bytes, size_t size, struct file *file)
{
	size_t done = 0;
	loff_t at = 0;
	int error = 0;
	unsigned int i, n;

	for (i = 0; i < depth && !error; i++)
		error = make(tfm, &jobs[i]);
	while (done < size && !error) {
		for (n = 0; n < depth && done < size; n++) {
			ssize_t taken = take(&jobs[n], bytes + done, size - done);

			if (taken < 0) {
				error = taken;
				break;
			}
			done += taken;
		}
		for (i = 0; i < n; i++) {
			int answer = finish(&jobs[i], file, &at);

			error = error ?: answer;
		}
	}
	for (i = 0; i < depth; i++)
		unmake(&jobs[i]);
	return error;
}

static int read_all(const char *path, u8 **bytes, size_t *size)
{
	struct file *file = filp_open(path, O_RDONLY | O_LARGEFILE, 0);
	loff_t at = 0;
	ssize_t got;
	int error = 0;

	if (IS_ERR(file))
		return PTR_ERR(file);
	*size = i_size_read(file_inode(file));
	*bytes = vmalloc(*size + 1);
	if (!*bytes)
		error = -ENOMEM;
	while (!error && at < *size) {
		got = kernel_read(file, *bytes + at, *size - at, &at);
		if (got <= 0)
			error = got ?: -EIO;
	}
	filp_close(file, NULL);
	return error;
}

static int work(struct crypto_acomp *tfm)
{
	struct file *file;
	u8 *bytes = NULL;
	size_t size = 0;
	int error;

	error = read_all(from, &bytes, &size);
	if (!error) {
		file = filp_open(to, O_WRONLY | O_CREAT | O_TRUNC | O_LARGEFILE, 0600);
		error = PTR_ERR_OR_ZERO(file);
		if (!error) {
			error = convert(tfm, bytes, size, file);
			filp_close(file, NULL);
		}
	}
	vfree(bytes);
	return error;
}

static int __init begin(void)
{
	struct crypto_acomp *tfm;

	if (!from || !to || piece == 0 || piece > MOST_BYTES || depth == 0 || depth > MOST_JOBS)
		return -EINVAL;
	tfm = crypto_alloc_acomp(driver, 0, 0);
	if (IS_ERR(tfm))
		return PTR_ERR(tfm);
	result = work(tfm);
	pr_info("%s with %s in %u requests: %d\n", decompress ? "decompressed" : "compressed", crypto_acomp_driver_name(tfm), requests, result);
	crypto_free_acomp(tfm);
	return 0;
}

static void __exit end(void)
{
}

module_init(begin);
module_exit(end);
MODULE_DESCRIPTION("A file through the kernel's compression interface");
MODULE_LICENSE("Dual MIT/GPL");
