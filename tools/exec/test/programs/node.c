/* What programs ask of the node before they open it: a character device with the driver's numbers, by every call that says so. */
#include "queue.h"
#include <dirent.h>
#include <sys/sysmacros.h>

static unsigned number(const char *path)
{
	char text[32] = "";
	FILE *file = fopen(path, "r");
	CHECK(file && fgets(text, sizeof text, file));
	fclose(file);
	return (unsigned)atoi(text);
}
static unsigned major_of, minor_of;
static int is(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && major(st->st_rdev) == major_of && minor(st->st_rdev) == minor_of;
}

int main(void)
{
	struct stat st;
	struct statx more;
	major_of = number("/sys/bus/dsa/devices/dsa0/cdev_major");
	minor_of = number("/sys/bus/dsa/devices/wq0.1/cdev_minor");
	CHECK(major_of > 0);
	CHECK(stat(DEDICATED, &st) == 0 && is(&st) && st.st_size == 0);
	CHECK(lstat(DEDICATED, &st) == 0 && is(&st));
	CHECK(fstatat(AT_FDCWD, DEDICATED, &st, 0) == 0 && is(&st));
	CHECK(statx(AT_FDCWD, DEDICATED, 0, STATX_BASIC_STATS, &more) == 0 && S_ISCHR(more.stx_mode) && more.stx_rdev_major == major_of &&
	      more.stx_rdev_minor == minor_of);
	CHECK(access(DEDICATED, R_OK | W_OK) == 0 && access("/dev/dsa/wq0.9", F_OK) == -1 && errno == ENOENT);
	int fd = open(DEDICATED, O_RDWR);
	CHECK(fd >= 0 && fstat(fd, &st) == 0 && is(&st));
	CHECK(fstatat(fd, "", &st, AT_EMPTY_PATH) == 0 && is(&st));
	CHECK(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &more) == 0 && S_ISCHR(more.stx_mode) && more.stx_rdev_minor == minor_of);
	/* By a directory. */
	int folder = open("/dev/dsa", O_RDONLY | O_DIRECTORY);
	CHECK(folder >= 0 && fstatat(folder, "wq0.1", &st, 0) == 0 && is(&st));
	CHECK(statx(folder, "wq0.1", 0, STATX_BASIC_STATS, &more) == 0 && S_ISCHR(more.stx_mode) && more.stx_rdev_minor == minor_of);
	int by = openat(folder, "wq0.0", O_RDWR);
	CHECK(by >= 0 && fstat(by, &st) == 0 && S_ISCHR(st.st_mode) && copies(portal_of(by), 1) == 1);
	CHECK(chdir("/dev/dsa") == 0 && stat("wq0.1", &st) == 0 && is(&st));
	char path[4096];
	CHECK(getcwd(path, sizeof path) && !strcmp(path, "/dev/dsa"));
	CHECK(realpath("wq0.1", path) && !strcmp(path, DEDICATED));
	by = open("wq0.0", O_RDWR);
	CHECK(by >= 0 && copies(portal_of(by), 1) == 1);
	DIR *all = opendir("/dev/dsa");
	int nodes = 0;
	for (struct dirent *entry; all && (entry = readdir(all));)
		nodes += !strncmp(entry->d_name, "wq0.", 4);
	CHECK(nodes == 2 && closedir(all) == 0);
	CHECK(chdir("/sys/bus/dsa/devices/wq0.1") == 0 && realpath(".", path) && !strncmp(path, "/sys/devices/pci", 16));
	CHECK(number("size") == 16 && number("../wq0.0/size") == 16);
	CHECK(number("/sys/bus/dsa/devices/wq0.1/../wq0.0/threshold") == 15);
	return 0;
}
