package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"luquan/drivers/modbus/profile"
	"luquan/gateway/edge"
	"luquan/internal/conffile"
)

func profileFramesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "frames PROFILE FRAMES",
		Short: "Decode frames from a line or a book through a profile of your own",
		Long: `Decode frames as they go over a serial line, requests and answers with their
check sums, through a profile file, and compare the values with those that the
file of frames says. docs/profiles.md describes that file. Exit status 1 with
every difference at file:line:col. Nothing is opened or dialled.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return errors.New("name the profile and the file of frames, for example my-meter.yaml my-meter.frames.yaml")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			lib, err := edge.Profiles()
			if err != nil {
				return err
			}
			done, err := frames(lib, args[0], args[1])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, %s, every point among them\n", done.ID, counted(done.Cases, "case"), counted(done.Values, "value"))
			return err
		},
	}
}

func frames(lib *profile.Library, profileFile, framesFile string) (profile.Checked, error) {
	data, err := conffile.Read(profileFile)
	if err != nil {
		return profile.Checked{}, err
	}
	if lib, err = lib.With(filepath.ToSlash(profileFile), data); err != nil {
		return profile.Checked{}, err
	}
	if data, err = conffile.Read(framesFile); err != nil {
		return profile.Checked{}, err
	}
	return lib.CheckFrames(framesFile, data)
}
