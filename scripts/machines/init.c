/*
 * init.c -- the first program of a small virtual machine: runs each program below /tests, as root and as an ordinary
 * user, says how it ended, and switches the machine off.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOBODY = 65534, LIMIT_S = 300 };

static void mount_at(const char *path, const char *type)
{
	mkdir(path, 0755);
	if (mount("none", path, type, 0, NULL) < 0)
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
}

static void run(const char *name, unsigned uid)
{
	int status = -1;
	printf("=== %s as %u\n", name, uid);
	pid_t child = fork();
	if (child == 0) {
		alarm(LIMIT_S);
		if (chdir("/tests") == 0 && setgid(uid) == 0 && setuid(uid) == 0)
			execl(name, name, (char *)NULL);
		_exit(127);
	}
	waitpid(child, &status, 0);
	printf("status %#x %s as %u\n", (unsigned)status, name, uid);
}

int main(void)
{
	struct dirent *entry;
	mount_at("/proc", "proc");
	mount_at("/sys", "sysfs");
	mount_at("/dev", "devtmpfs");
	mount_at("/tmp", "tmpfs");
	chmod("/tmp", 01777);
	int console = open("/dev/console", O_RDWR), paranoid = open("/proc/sys/kernel/perf_event_paranoid", O_WRONLY);
	for (int fd = 0; fd < 3; fd++)
		dup2(console, fd);
	setvbuf(stdout, NULL, _IONBF, 0);
	if (write(paranoid, "2", 1) != 1)
		perror("perf_event_paranoid");
	DIR *tests = opendir("/tests");
	while (tests && (entry = readdir(tests)))
		if (entry->d_name[0] != '.') {
			run(entry->d_name, 0);
			run(entry->d_name, NOBODY);
		}
	reboot(RB_POWER_OFF);
	return 1;
}
